import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SseParser } from '../../bench/client/sse-parser.ts'
import { StreamMeasure } from '../../bench/client/stream-measure.ts'
import { StreamRequest } from '../../bench/client/stream-request.ts'
import { createTarget } from '../../bench/client/target.ts'
import type { RequestRecord } from '../../bench/metrics/request-record.ts'
import { completionSteps, FakeLlmServer, type Script } from '../support/fake-llm-server.ts'

/** Sends one request to a scripted server; what the client measures is in the server's virtual seconds. */
async function measureOne(script: Script, path = '/v1/completions', timeoutMs = 10_000): Promise<RequestRecord> {
  const server = new FakeLlmServer(() => script)
  const url = await server.listen()
  // The clock must not move on before the client has read the message: sockets are real, time is not.
  server.afterWrite = () => new Promise((resolve) => setTimeout(resolve, 15))
  const target = createTarget(url, null)
  try {
    return await new Promise<RequestRecord>((resolve) => {
      new StreamRequest(
        target,
        {
          index: 4,
          offsetS: 0,
          adapter: 'pirate',
          inputLen: 11,
          outputLen: 3,
          clipped: false,
          traceKey: null,
          blockIds: null,
          body: '{"prompt":[1]}',
        },
        { path, isChat: path.includes('chat'), keepsText: true, timeoutMs },
        { scheduledS: 0, dispatchedS: 0 },
        { now: () => server.nowS, onMessages: () => undefined, onEnd: resolve },
      )
    })
  } finally {
    target.agent.destroy()
    await server.close()
  }
}

test('completions: TTFT, gaps and latency as computed by hand; usage and [DONE] do not lengthen it', async () => {
  const record = await measureOne({ kind: 'stream', steps: completionSteps([1, 0.25, 0.75], { prompt: 9, completion: 3 }) })
  assert.equal(record.outcome, 'success')
  assert.deepEqual([record.ttftS, record.firstTextS, record.itlsS, record.e2elS], [1, 1, [0.25, 0.75], 2])
  assert.deepEqual([record.inputLen, record.outputLen, record.outputSource, record.cachedTokens], [9, 3, 'usage', 3])
  assert.deepEqual([record.finishReason, record.text, record.adapter], ['length', 't0t1t2', 'pirate'])
})

test('chat: a role chunk is the first token, its text comes later, and latency runs to the usage message', async () => {
  const event = (data: unknown): string => `data: ${JSON.stringify(data)}\n\n`
  const record = await measureOne(
    {
      kind: 'stream',
      steps: [
        { afterS: 0.5, write: event({ choices: [{ delta: { role: 'assistant', content: '' } }] }) },
        { afterS: 0.5, write: event({ choices: [{ delta: { content: 'hi' }, finish_reason: null }] }) },
        { afterS: 1, write: event({ choices: [{ delta: { content: '!' }, finish_reason: 'stop' }] }) },
        { afterS: 2, write: event({ choices: [], usage: { prompt_tokens: 5, completion_tokens: 2 } }) },
        { afterS: 4, write: 'data: [DONE]\n\n' },
      ],
    },
    '/v1/chat/completions',
  )
  assert.deepEqual([record.ttftS, record.firstTextS, record.itlsS, record.e2elS], [0.5, 1, [0.5, 1], 4])
})

test('without usage, messages are counted and the record says so', async () => {
  const record = await measureOne({ kind: 'stream', steps: completionSteps([1, 1], null) })
  assert.deepEqual([record.outputLen, record.outputSource, record.inputLen], [2, 'messages', 11])
})

test('every way to fail is told apart', async () => {
  const steps = completionSteps([1, 1], null)
  const outcomes: readonly (readonly [Script, RequestRecord['outcome'], RegExp])[] = [
    [{ kind: 'status', status: 429, body: '{"error":{"message":"queue full"}}' }, 'rejected', /queue full/],
    [{ kind: 'status', status: 503, body: '{"error":"starting"}' }, 'rejected', /starting/],
    [{ kind: 'status', status: 500, body: 'oops' }, 'failed', /oops/],
    [{ kind: 'status', status: 404, body: '{"message":"no model"}' }, 'failed', /no model/],
    [{ kind: 'drop' }, 'failed', /hang up|ECONNRESET/],
    [{ kind: 'stream', steps: steps.slice(0, 1), end: 'destroy' }, 'failed', /closed|aborted/],
    [{ kind: 'stream', steps: steps.slice(0, 1) }, 'failed', /ended early/],
    [{ kind: 'stream', steps: [] }, 'failed', /without a token/],
    [
      { kind: 'stream', steps: [{ afterS: 0, write: 'data: {"error":{"message":"engine died"}}\n\n' }] },
      'failed',
      /engine died/,
    ],
    [{ kind: 'stream', steps: [{ afterS: 0, write: 'data: nonsense\n\n' }] }, 'failed', /not JSON/],
    [
      { kind: 'stream', steps: [{ afterS: 0, write: 'data: {"choices":[{"text":"x","finish_reason":"abort"}]}\n\n' }] },
      'aborted',
      /aborted/,
    ],
  ]
  for (const [script, outcome, message] of outcomes) {
    const record = await measureOne(script)
    assert.equal(record.outcome, outcome, JSON.stringify(script))
    assert.match(record.error ?? '', message)
  }
})

test('a server that never ends its answer costs the timeout, not for ever', async () => {
  const record = await measureOne(
    { kind: 'stream', steps: completionSteps([1], null).slice(0, 1), end: 'hang' },
    '/v1/completions',
    200,
  )
  assert.deepEqual([record.outcome, record.error], ['failed', 'no end within 200 ms'])
})

test('SSE: the same events wherever chunks end, with LF or CRLF, comments and several data lines', () => {
  const text = ': ping\n\ndata: one\n\nevent: x\r\ndata:two\r\ndata: more\r\n\r\nid: 7\n\ndata: é\n\ndata: last'
  for (const size of [1, 2, 3, 7, 1000]) {
    const events: string[] = []
    const parser = new SseParser((data) => events.push(data))
    for (let start = 0; start < text.length; start += size) parser.push(text.slice(start, start + size))
    parser.end()
    assert.deepEqual(events, ['one', 'two\nmore', 'é', 'last'], `chunks of ${size}`)
  }
})

test('a message with an empty list of choices is no token', () => {
  const measure = new StreamMeasure(false, false)
  measure.onData('{"choices":[],"usage":{"completion_tokens":1}}', 1)
  assert.deepEqual([measure.ttftS, measure.completionTokens], [null, 1])
})
