// lorikeet.v1.Inference with a real client on a scripted engine.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import http2, { type ClientHttp2Session, type ClientHttp2Stream } from 'node:http2'
import { afterEach, describe, test } from 'node:test'
import { status } from '@grpc/grpc-js'
import { LorikeetError } from '../../src/errors.ts'
import {
  FinishReason,
  GenerateRequest,
  type GenerateResponse,
  GenerateStreamResponse,
} from '../../src/server/grpc/generated/lorikeet/v1/inference.ts'
import {
  call,
  collect,
  detailTypes,
  failure,
  type GrpcHarness,
  type GrpcHarnessOptions,
  generateRequest,
  metadata,
  type RequestParts,
  startGrpcHarness,
} from '../support/grpc-harness.ts'
import { demoTokenizer } from '../support/http-harness.ts'

const TOKENS = demoTokenizer().encode('a little bird sang', false)
const TEXT = demoTokenizer().decode(TOKENS, { skipSpecialTokens: true })
const harnesses: GrpcHarness[] = []

async function start(options: GrpcHarnessOptions = {}): Promise<GrpcHarness> {
  const harness = await startGrpcHarness({ script: () => [...TOKENS, 2], ...options })
  harnesses.push(harness)
  return harness
}
afterEach(async () => {
  for (const harness of harnesses.splice(0)) await harness.close()
})

const generate = (harness: GrpcHarness, parts: RequestParts) =>
  call<GenerateResponse>((done) => harness.inference.generate(generateRequest(parts), done))

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5))
}

/** A client that reads only when told to; grpc-js reads ahead without bounds. */
class RawReader {
  readonly #session: ClientHttp2Session
  readonly #stream: ClientHttp2Stream

  constructor(address: string, message: Uint8Array) {
    this.#session = http2.connect(`http://${address}`)
    this.#stream = this.#session.request({
      ':method': 'POST',
      ':path': '/lorikeet.v1.Inference/GenerateStream',
      'content-type': 'application/grpc',
      te: 'trailers',
    })
    // Every message comes after a flag and its length.
    const head = Buffer.alloc(5)
    head.writeUInt32BE(message.length, 1)
    this.#stream.end(Buffer.concat([head, message]))
  }

  async read(): Promise<GenerateStreamResponse[]> {
    const chunks: Buffer[] = []
    for await (const chunk of this.#stream) chunks.push(chunk as Buffer)
    this.#session.close()
    const bytes = Buffer.concat(chunks)
    const messages: GenerateStreamResponse[] = []
    for (let at = 0; at < bytes.length; ) {
      const end = at + 5 + bytes.readUInt32BE(at + 1)
      messages.push(GenerateStreamResponse.decode(bytes.subarray(at + 5, end)))
      at = end
    }
    return messages
  }
}

describe('Generate', () => {
  test('answers with text, finish reason and usage of the base model', async () => {
    const harness = await start()
    const answer = await generate(harness, { text: 'once', stopping: { maxTokens: 50 } })
    const [choice] = answer.choices
    assert.equal(choice?.text, TEXT)
    assert.equal(choice?.finishReason, FinishReason.STOP)
    assert.equal(choice?.stopCause, undefined)
    assert.equal(answer.model, 'demo')
    assert.equal(answer.adapter, '')
    assert.match(answer.id, /^cmpl-[0-9a-f]{32}$/)
    assert.equal(answer.usage?.completionTokens, TOKENS.length + 1)
    assert.deepEqual(choice?.tokenIds, [])
  })

  test('runs the adapter it names', async () => {
    const harness = await start()
    const { id } = await harness.engine.loadAdapter({ name: 'pirate', path: '/p' })
    const answer = await generate(harness, { text: 'once', adapter: 'pirate' })
    assert.equal(answer.adapter, 'pirate')
    assert.equal(answer.model, 'pirate')
    assert.equal(harness.engine.submitted[0]?.adapterId, id)
    const viaModel = await generate(harness, { text: 'once', model: 'demo:pirate' })
    assert.equal(viaModel.adapter, 'pirate')
  })

  test('hands every field on, and what is unset is as over REST', async () => {
    const harness = await start()
    await generate(harness, { text: 'a' })
    await generate(harness, {
      input: { $case: 'tokenIds', tokenIds: { ids: [5, 6] } },
      priority: -3,
      cacheSalt: 'salt',
      sampling: { temperature: 0.7, topP: 0.9, topK: 5, minP: 0.1, seed: 77n, logitBias: { 9: 500 }, allowedTokenIds: [9, 10] },
      stopping: { maxTokens: 3, minTokens: 2, stopTokenIds: [8], ignoreEos: true },
    })
    const [plain, full] = harness.engine.submitted
    assert.equal(plain?.sampling.temperature, 1)
    assert.equal(plain?.sampling.maxTokens, 16)
    assert.equal(plain?.sampling.seed, null)
    assert.deepEqual([...(full?.promptTokenIds ?? [])], [5, 6])
    assert.equal(full?.priority, -3)
    assert.equal(full?.cacheSalt, 'salt')
    const { temperature, topP, topK, minP, seed, logitBias, allowedTokenIds, maxTokens, minTokens, stopTokenIds, ignoreEos } =
      full?.sampling ?? assert.fail()
    assert.deepEqual([temperature, topP, topK, minP, seed], [0.7, 0.9, 5, 0.1, 77])
    assert.deepEqual([logitBias, allowedTokenIds], [[[9, 100]], [9, 10]])
    assert.deepEqual([maxTokens, minTokens, stopTokenIds, ignoreEos], [3, 2, [8], true])
  })

  test('renders chats, and takes REST bodies as JSON', async () => {
    const harness = await start()
    const message = { role: 'user', content: 'hello', name: '', toolCallId: '', toolCalls: [] }
    const chat = {
      messages: [message],
      tools: [],
      toolChoice: '',
      addGenerationPrompt: undefined,
      continueFinalMessage: false,
      chatTemplateKwargsJson: '',
    }
    const answer = await generate(harness, { input: { $case: 'chat', chat }, stopping: { maxTokens: 40 } })
    assert.match(answer.id, /^chatcmpl-/)
    const json = JSON.stringify({ messages: [{ role: 'user', content: 'hello' }], max_tokens: 7, stream: true })
    await generate(harness, { input: { $case: 'json', json } })
    const [first, second] = harness.engine.submitted
    assert.deepEqual(first?.promptTokenIds, second?.promptTokenIds)
    assert.equal(second?.sampling.maxTokens, 7)
    const text = demoTokenizer().decode([...(first?.promptTokenIds ?? [])], { skipSpecialTokens: false })
    assert.match(text, /user: hello\s+assistant:/)
  })

  test('tells stop causes, token ids, logprobs and prompt logprobs', async () => {
    const harness = await start()
    const answer = await generate(harness, {
      text: 'once upon',
      stopping: { stop: ['bird'], maxTokens: 50 },
      output: { tokenIds: true, logprobs: 2, promptLogprobs: 1 },
    })
    const [choice] = answer.choices
    assert.deepEqual(choice?.stopCause, { $case: 'stopString', stopString: 'bird' })
    assert.equal(choice?.text, TEXT.slice(0, TEXT.indexOf('bird')))
    assert.equal(choice?.logprobs.length, choice?.tokenIds.length)
    assert.deepEqual(
      choice?.logprobs[0]?.top.map(({ tokenId, logprob }) => [tokenId, logprob]),
      [
        [265, -0.5],
        [266, -0.625],
      ],
    )
    assert.equal(choice?.logprobs[0]?.rank, 3)
    assert.equal(answer.promptLogprobs.length, answer.promptTokenIds.length - 1)
    const byToken = await generate(harness, { text: 'a', stopping: { stopTokenIds: [TOKENS[1] as number] } })
    assert.deepEqual(byToken.choices[0]?.stopCause, { $case: 'stopTokenId', stopTokenId: TOKENS[1] })
  })

  test('returns all choices, and echoes', async () => {
    const harness = await start()
    const { choices } = await generate(harness, { text: 'once', sampling: { n: 3, temperature: 1 }, output: { echo: true } })
    assert.deepEqual(
      choices.map(({ index }) => index),
      [0, 1, 2],
    )
    assert.ok(choices.every(({ text }) => text.startsWith('once') && text.endsWith('sang')))
  })

  const refused: readonly (readonly [string, RequestParts, number, RegExp])[] = [
    ['no input', {}, status.INVALID_ARGUMENT, /input: is required/],
    ['a bad range', { text: 'a', sampling: { temperature: 9 } }, status.INVALID_ARGUMENT, /temperature/],
    ['a seed beyond 2^53', { text: 'a', sampling: { seed: 2n ** 60n } }, status.INVALID_ARGUMENT, /seed/],
    ['a prompt too long', { text: 'bird '.repeat(600) }, status.INVALID_ARGUMENT, /maximum context length is 512 tokens/],
    ['an unknown adapter', { text: 'a', adapter: 'nobody' }, status.NOT_FOUND, /`nobody` does not exist/],
    ['JSON that is none', { input: { $case: 'json', json: '{' } }, status.INVALID_ARGUMENT, /json: is not JSON/],
    ['two prompts', { input: { $case: 'json', json: '{"prompt":["a","b"]}' } }, status.INVALID_ARGUMENT, /one prompt/],
    ['lone surrogates', { input: { $case: 'json', json: '{"prompt":"a","model":"\\ud800"}' } }, status.NOT_FOUND, /exist/],
  ]
  for (const [name, parts, code, message] of refused) {
    test(`refuses ${name}`, async () => {
      const harness = await start()
      const error = await failure(generate(harness, parts))
      assert.equal(error.code, code)
      assert.match(error.details, message)
      assert.ok(detailTypes(error).includes('ErrorInfo'))
      assert.equal(harness.engine.submitted.length, 0)
    })
  }

  test('says when to come back', async () => {
    const harness = await start({ maxQueue: 0 })
    const full = await failure(generate(harness, { text: 'a' }))
    assert.equal(full.code, status.RESOURCE_EXHAUSTED)
    assert.deepEqual(detailTypes(full), ['ErrorInfo', 'RetryInfo'])
    harness.engine.state = 'dead'
    const dead = await failure(generate(harness, { text: 'a' }))
    assert.equal(dead.code, status.UNAVAILABLE)
  })

  test('keeps faults of its own to the log', async () => {
    const harness = await start({ failure: new LorikeetError('INTERNAL', { detail: '/secret/path' }) })
    const error = await failure(generate(harness, { text: 'a' }))
    assert.equal(error.code, status.INTERNAL)
    assert.doesNotMatch(error.details, /secret/)
    assert.ok(harness.log.some((line) => JSON.stringify(line).includes('/secret/path')))
  })

  test('echoes x-request-id and takes the id of the response from it', async () => {
    const harness = await start()
    const headers = metadata({ 'x-request-id': 'mine' })
    const answer = await new Promise<{ id: string; echoed: unknown }>((resolve, reject) => {
      let echoed: unknown
      const running = harness.inference.generate(
        generateRequest({ text: 'a', requestId: 'other' }),
        headers,
        (error, response) => (error === null ? resolve({ id: response.id, echoed }) : reject(error)),
      )
      running.on('metadata', (initial) => {
        echoed = initial.get('x-request-id')[0]
      })
    })
    assert.deepEqual(answer, { id: 'cmpl-mine', echoed: 'mine' })
    assert.equal((await generate(harness, { text: 'a', requestId: 'other' })).id, 'cmpl-other')
  })
})

describe('GenerateStream', () => {
  const kinds = (events: readonly GenerateStreamResponse[]) => events.map(({ event }) => event?.$case)
  const textOf = (events: readonly GenerateStreamResponse[], index = 0) =>
    events.map(({ event }) => (event?.$case === 'delta' && event.delta.index === index ? event.delta.text : '')).join('')

  test('starts, says deltas, finishes and ends with usage', async () => {
    const harness = await start()
    const request = generateRequest({ text: 'once', stopping: { maxTokens: 50 }, output: { tokenIds: true } })
    const events = await collect<GenerateStreamResponse>(harness.inference.generateStream(request))
    assert.equal(textOf(events), TEXT)
    const order = kinds(events)
    assert.equal(order[0], 'started')
    assert.deepEqual(order.slice(-2), ['finished', 'usage'])
    assert.ok(order.filter((kind) => kind === 'delta').length > 2)
    const [{ event: first } = assert.fail()] = events
    assert.ok(first?.$case === 'started')
    assert.equal(first.started.promptTokens, first.started.promptTokenIds.length)
    const last = events.at(-1)?.event
    assert.ok(last?.$case === 'usage')
    assert.equal(last.usage.completionTokens, TOKENS.length + 1)
  })

  test('finishes every choice once', async () => {
    const harness = await start()
    const request = generateRequest({ text: 'once', sampling: { n: 2, temperature: 1 }, stopping: { maxTokens: 50 } })
    const events = await collect<GenerateStreamResponse>(harness.inference.generateStream(request))
    assert.equal(kinds(events).filter((kind) => kind === 'finished').length, 2)
    assert.equal(textOf(events, 0), TEXT)
    assert.equal(textOf(events, 1), TEXT)
  })

  test('merges by stream_interval', async () => {
    const harness = await start({ script: () => Array.from({ length: 20 }, () => TOKENS[0] as number) })
    const request = (streamInterval: number) =>
      generateRequest({ text: 'once', stopping: { maxTokens: 20 }, output: { streamInterval } })
    const count = async (interval: number) =>
      kinds(await collect<GenerateStreamResponse>(harness.inference.generateStream(request(interval)))).filter(
        (kind) => kind === 'delta',
      ).length
    assert.equal(await count(1), 20)
    assert.ok((await count(10)) <= 3)
  })

  test('a client that cancels ends its request in the engine', async () => {
    const harness = await start({ script: () => Array.from({ length: 4000 }, () => TOKENS[0] as number), maxModelLen: 8000 })
    const stream = harness.inference.generateStream(generateRequest({ text: 'once', stopping: { maxTokens: 4000 } }))
    stream.on('error', () => {})
    await once(stream, 'data')
    stream.cancel()
    await until(() => harness.engine.numRunning === 0)
    assert.equal(harness.engine.aborted.length, 1)
    await until(() => harness.log.some((line) => line.msg === 'request' && line['finishReason'] === 'abort'))
  })

  test('a deadline ends it too, running or waiting', async () => {
    const harness = await start()
    harness.engine.pause()
    const options = { deadline: Date.now() + 100 }
    const streamed = failure(
      collect(harness.inference.generateStream(generateRequest({ text: 'once' }), metadata({}), options)),
    )
    const whole = failure(
      call((done) => harness.inference.generate(generateRequest({ text: 'once' }), metadata({}), options, done)),
    )
    assert.equal((await streamed).code, status.DEADLINE_EXCEEDED)
    assert.equal((await whole).code, status.DEADLINE_EXCEEDED)
    await until(() => harness.engine.aborted.length === 2)
    await until(() => harness.engine.numRunning === 0)
  })

  test('a slow reader gets everything, in fewer and larger deltas', async () => {
    const count = 3000
    const harness = await start({ script: () => Array.from({ length: count }, () => TOKENS[0] as number), maxModelLen: 8000 })
    const request = generateRequest({ text: 'once', stopping: { maxTokens: count }, output: { tokenIds: true, logprobs: 20 } })
    const reader = new RawReader(harness.address, GenerateRequest.encode(request).finish())
    await until(() => harness.engine.submitted.length === 1)
    await until(() => harness.engine.numRunning === 0)
    const events = await reader.read()
    const deltas = events.flatMap(({ event }) => (event?.$case === 'delta' ? [event.delta] : []))
    assert.equal(
      deltas.reduce((sum, delta) => sum + delta.tokenIds.length, 0),
      count,
    )
    assert.ok(deltas.length < count / 2, `${deltas.length} deltas`)
    assert.deepEqual(kinds(events).slice(-2), ['finished', 'usage'])
  })

  test('a failure in the engine is the status of the stream', async () => {
    const harness = await start({ failure: new LorikeetError('REQUEST_TOO_LARGE', { needBlocks: 9, haveBlocks: 1 }) })
    const error = await failure(collect(harness.inference.generateStream(generateRequest({ text: 'a' }))))
    assert.equal(error.code, status.RESOURCE_EXHAUSTED)
    assert.deepEqual(detailTypes(error), ['ErrorInfo'])
  })
})

describe('the other calls', () => {
  test('tokenize and detokenize', async () => {
    const harness = await start()
    const request = {
      model: '',
      input: { $case: 'text' as const, text: 'a bird' },
      addSpecialTokens: false,
      returnTokenStrings: true,
    }
    const { tokenIds, tokenStrings, maxModelLen } = await call<{
      tokenIds: number[]
      tokenStrings: string[]
      maxModelLen: number
    }>((done) => harness.inference.tokenize(request, done))
    assert.deepEqual(tokenIds, demoTokenizer().encode('a bird', false))
    assert.equal(tokenStrings.length, tokenIds.length)
    assert.equal(maxModelLen, 512)
    const { text } = await call<{ text: string }>((done) => harness.inference.detokenize({ model: '', tokenIds }, done))
    assert.equal(text, 'a bird')
    const error = await failure(call((done) => harness.inference.detokenize({ model: '', tokenIds: [99999] }, done)))
    assert.equal(error.code, status.INVALID_ARGUMENT)
  })

  test('models are those of /v1/models', async () => {
    const harness = await start()
    await harness.engine.loadAdapter({ name: 'pirate', path: '/p' })
    const { models } = await call<{ models: { id: string; parent: string; maxModelLen: number }[] }>((done) =>
      harness.inference.listModels({}, done),
    )
    assert.deepEqual(
      models.map(({ id, parent, maxModelLen }) => [id, parent, maxModelLen]),
      [
        ['demo', '', 512],
        ['alias', '', 512],
        ['pirate', 'demo', 0],
      ],
    )
  })
})
