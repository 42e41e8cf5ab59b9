import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { test } from 'node:test'
import { ConnectionLimit } from '../../src/server/console/page/connection-limit.ts'
import { curlCommand, type GenerationSettings, generationRequest } from '../../src/server/console/page/generation-request.ts'
import { formatBytes, formatCount, formatMs, formatPercent, formatRate } from '../../src/server/console/page/number-format.ts'
import { readEvents } from '../../src/server/console/page/read-events.ts'
import { MAX_SELECTED, Selection } from '../../src/server/console/page/selection.ts'
import { StreamMeter } from '../../src/server/console/page/stream-meter.ts'

const SETTINGS: GenerationSettings = {
  mode: 'completion',
  prompt: `it's "here" $HOME \\ \n end`,
  system: '',
  temperature: 0.5,
  topP: 0.9,
  maxTokens: 8,
  seed: null,
}

async function eventsOf(...pieces: readonly Uint8Array[]): Promise<string[]> {
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const piece of pieces) controller.enqueue(piece)
      controller.close()
    },
  })
  const events: string[] = []
  for await (const event of readEvents(body)) events.push(event)
  return events
}

test('events are whole however the bytes are cut', async () => {
  const bytes = new TextEncoder().encode('data: {"text":"é€😀"}\n\n: comment\n\ndata: [DONE]\n\n')
  for (let cut = 1; cut < bytes.length; cut++) {
    assert.deepEqual(await eventsOf(bytes.slice(0, cut), bytes.slice(cut)), ['{"text":"é€😀"}', '[DONE]'], `cut at ${cut}`)
  }
})

test('half an event at the end is none', async () => {
  assert.deepEqual(await eventsOf(new TextEncoder().encode('data: a\r\n\r\ndata: b')), ['a'])
})

test('settings become a body of the public API', () => {
  const { path, body } = generationRequest('pirate', SETTINGS)
  assert.equal(path, 'v1/completions')
  assert.deepEqual([body['model'], body['prompt'], body['max_tokens'], 'seed' in body], ['pirate', SETTINGS.prompt, 8, false])
  const chat = generationRequest('pirate', { ...SETTINGS, mode: 'chat', system: 'Be brief.', seed: 0 })
  assert.equal(chat.path, 'v1/chat/completions')
  assert.equal(chat.body['seed'], 0)
  assert.deepEqual(chat.body['messages'], [
    { role: 'system', content: 'Be brief.' },
    { role: 'user', content: SETTINGS.prompt },
  ])
})

test('the curl command passes the body through a shell unchanged, and holds no key', () => {
  const request = generationRequest('pirate', SETTINGS)
  const command = curlCommand('https://example.test/below/?q=1', request, true)
  const script = `curl() { printf '%s\\0' "$@"; }\n${command}`
  const { stdout, status } = spawnSync('sh', ['-c', script], { encoding: 'utf8', env: { LORIKEET_API_KEY: 'k' } })
  assert.equal(status, 0)
  const words = stdout.split('\0')
  assert.equal(words[1], 'https://example.test/below/v1/completions')
  assert.ok(words.includes('authorization: Bearer k'))
  assert.deepEqual(JSON.parse(words[words.indexOf('-d') + 1]!), request.body)
})

test('connections go to those who asked first, and to nobody who left', async () => {
  const limit = new ConnectionLimit(1)
  const leaving = new AbortController()
  const { signal } = new AbortController()
  const release = await limit.acquire(signal)
  assert.equal(limit.isReached, true)
  const left = limit.acquire(leaving.signal)
  let isServed = false
  const next = limit.acquire(signal).then((give) => {
    isServed = true
    return give
  })
  leaving.abort(new Error('gone'))
  await assert.rejects(left, /gone/)
  assert.equal(isServed, false)
  release()
  release()
  const releaseNext = await next
  assert.equal(limit.isReached, true, 'a connection given back twice is one connection')
  releaseNext()
  assert.equal(limit.isReached, false)
  await assert.rejects(limit.acquire(leaving.signal), /gone/)
})

test('the meter counts tokens, not chunks', () => {
  const meter = new StreamMeter(1000)
  assert.deepEqual(meter.figures(), { ttftMs: null, numTokens: 0, tokensPerS: null })
  meter.record(0, 1010)
  meter.record(3, 1050)
  assert.deepEqual(meter.figures(), { ttftMs: 50, numTokens: 3, tokensPerS: null })
  meter.record(13, 1550)
  meter.record(13, 9000)
  assert.deepEqual(meter.figures(), { ttftMs: 50, numTokens: 13, tokensPerS: 20 })
})

test('a selected model keeps its colour, and the colours are enough', () => {
  const selection = new Selection()
  let numChanges = 0
  selection.addEventListener('change', () => numChanges++)
  for (let index = 0; index < MAX_SELECTED + 2; index++) selection.toggle(`m${index}`)
  assert.deepEqual([selection.models.length, numChanges, selection.isFull], [MAX_SELECTED, MAX_SELECTED, true])
  selection.toggle('m1')
  selection.toggle('late')
  assert.deepEqual([selection.find('late')?.colour, selection.find('m2')?.colour, selection.find('m1')], [1, 2, null])
})

test('numbers are short', () => {
  assert.deepEqual([formatCount(1234), formatCount(131_072)], ['1,234', '131.1K'])
  assert.deepEqual([formatRate(0), formatRate(4.26), formatRate(412.7)], ['0', '4.3', '413'])
  assert.deepEqual(
    [formatBytes(0), formatBytes(1023), formatBytes(1536), formatBytes(2 ** 31)],
    ['0 B', '1023 B', '1.5 KiB', '2.0 GiB'],
  )
  assert.deepEqual([formatMs(34.4), formatMs(1234), formatMs(12_340)], ['34 ms', '1.23 s', '12.3 s'])
  assert.deepEqual([formatPercent(0), formatPercent(0.034), formatPercent(0.5)], ['0 %', '3.4 %', '50 %'])
})
