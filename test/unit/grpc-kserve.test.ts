// KServe's protocol and Triton's streaming with a real client on a scripted engine.

import assert from 'node:assert/strict'
import { afterEach, describe, test } from 'node:test'
import { type ClientDuplexStream, status } from '@grpc/grpc-js'
import type {
  InferParameter,
  ModelInferRequest,
  ModelInferResponse,
  ModelStreamInferResponse,
} from '../../src/server/grpc/generated/inference/grpc_service.ts'
import { call, failure, type GrpcHarness, type GrpcHarnessOptions, startGrpcHarness } from '../support/grpc-harness.ts'
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

interface Parts {
  readonly id?: string
  readonly model?: string
  readonly texts?: Readonly<Record<string, string>>
  readonly flags?: Readonly<Record<string, boolean>>
  readonly parameters?: Record<string, InferParameter>
  readonly isTyped?: boolean
}

const TRUE: InferParameter = { parameterChoice: { $case: 'boolParam', boolParam: true } }

/** Raw as Triton's own clients send it, or with typed contents. */
function inferRequest(parts: Parts): ModelInferRequest {
  const tensors = [
    ...Object.entries(parts.texts ?? { text_input: 'once' }).map(([name, text]) => ({
      name,
      datatype: 'BYTES',
      text,
      flag: false,
    })),
    ...Object.entries(parts.flags ?? {}).map(([name, flag]) => ({ name, datatype: 'BOOL', text: '', flag })),
  ]
  const none = { intContents: [], int64Contents: [], uintContents: [], uint64Contents: [], fp32Contents: [], fp64Contents: [] }
  return {
    modelName: parts.model ?? 'demo',
    modelVersion: '',
    id: parts.id ?? '',
    parameters: parts.parameters ?? {},
    inputs: tensors.map(({ name, datatype, text, flag }) => ({
      name,
      datatype,
      shape: [1n],
      parameters: {},
      contents: parts.isTyped
        ? {
            ...none,
            bytesContents: datatype === 'BYTES' ? [Buffer.from(text)] : [],
            boolContents: datatype === 'BOOL' ? [flag] : [],
          }
        : undefined,
    })),
    outputs: [],
    rawInputContents: parts.isTyped
      ? []
      : tensors.map(({ datatype, text, flag }) => {
          if (datatype === 'BOOL') return Buffer.from([flag ? 1 : 0])
          const bytes = Buffer.from(text)
          const length = Buffer.alloc(4)
          length.writeUInt32LE(bytes.length)
          return Buffer.concat([length, bytes])
        }),
  }
}

/** Elements of an output, raw or typed; null when it is not there. */
function output(response: ModelInferResponse | undefined, name: string): (string | number)[] | null {
  const index = response?.outputs.findIndex((tensor) => tensor.name === name) ?? -1
  const tensor = response?.outputs[index]
  if (response === undefined || tensor === undefined) return null
  const raw = response.rawOutputContents[index]
  if (raw === undefined) {
    const { bytesContents = [], fp32Contents = [], uintContents = [] } = tensor.contents ?? {}
    return [...bytesContents.map(String), ...fp32Contents, ...uintContents]
  }
  const values: (string | number)[] = []
  for (let at = 0; at < raw.length; ) {
    if (tensor.datatype === 'BYTES') {
      const end = at + 4 + raw.readUInt32LE(at)
      values.push(raw.toString('utf8', at + 4, end))
      at = end
    } else {
      values.push(tensor.datatype === 'FP32' ? raw.readFloatLE(at) : raw.readUInt32LE(at))
      at += 4
    }
  }
  return values
}

const infer = ({ kserve }: GrpcHarness, parts: Parts) =>
  call<ModelInferResponse>((done) => kserve.modelInfer(inferRequest(parts), done))

const sampling = (values: object) => ({ text_input: 'once', sampling_parameters: JSON.stringify(values) })
const finalOf = (response: ModelInferResponse | undefined) => response?.parameters['triton_final_response']?.parameterChoice

describe('ModelInfer', () => {
  test('answers with the prompt in front unless that is excluded', async () => {
    const harness = await start()
    const answer = await infer(harness, { id: '42' })
    assert.deepEqual(output(answer, 'text_output'), [`once${TEXT}`])
    assert.equal(answer.id, '42')
    assert.equal(answer.modelVersion, '1')
    const bare = await infer(harness, { flags: { exclude_input_in_output: true } })
    assert.deepEqual(output(bare, 'text_output'), [TEXT])
  })

  test('answers typed contents with typed contents', async () => {
    const harness = await start()
    const answer = await infer(harness, { isTyped: true, flags: { return_num_input_tokens: true } })
    assert.equal(answer.rawOutputContents.length, 0)
    assert.deepEqual(output(answer, 'text_output'), [`once${TEXT}`])
    assert.equal(output(answer, 'num_input_tokens')?.length, 1)
  })

  test('reads sampling parameters written as text, and the adapter among them', async () => {
    const harness = await start()
    const { id } = await harness.engine.loadAdapter({ name: 'pirate', path: '/p' })
    const values = { temperature: '0.25', top_p: '0.95', max_tokens: '3', ignore_eos: 'True', lora_name: 'pirate', stop: '7' }
    await infer(harness, { texts: sampling(values) })
    const [submitted] = harness.engine.submitted
    const { temperature, topP, maxTokens, ignoreEos } = submitted?.sampling ?? assert.fail()
    assert.deepEqual([temperature, topP, maxTokens, ignoreEos], [0.25, 0.95, 3, true])
    assert.equal(submitted?.adapterId, id)
    await infer(harness, { model: 'pirate' })
    assert.equal(harness.engine.submitted[1]?.adapterId, id)
  })

  test('takes them from the request without the tensor', async () => {
    const harness = await start()
    const parameters: Record<string, InferParameter> = {
      max_tokens: { parameterChoice: { $case: 'int64Param', int64Param: 2n } },
      temperature: { parameterChoice: { $case: 'doubleParam', doubleParam: 0.5 } },
    }
    await infer(harness, { parameters })
    assert.equal(harness.engine.submitted[0]?.sampling.maxTokens, 2)
    assert.equal(harness.engine.submitted[0]?.sampling.temperature, 0.5)
  })

  test('adds the outputs that were asked for', async () => {
    const harness = await start()
    const flags = {
      return_finish_reason: true,
      return_cumulative_logprob: true,
      return_logprobs: true,
      return_num_input_tokens: true,
      return_num_output_tokens: true,
    }
    const answer = await infer(harness, { texts: sampling({ logprobs: 1, max_tokens: 4 }), flags })
    assert.deepEqual(
      answer.outputs.map(({ name }) => name),
      ['text_output', 'finish_reason', 'cumulative_logprob', 'logprobs', 'num_input_tokens', 'num_output_tokens'],
    )
    assert.deepEqual(output(answer, 'finish_reason'), ['length'])
    assert.deepEqual(output(answer, 'cumulative_logprob'), [-4])
    assert.deepEqual(output(answer, 'num_output_tokens'), [4])
    const logprobs = JSON.parse(String(output(answer, 'logprobs')?.[0])) as Record<string, { rank: number }>[]
    assert.equal(logprobs.length, 4)
    assert.equal(logprobs[0]?.['265']?.rank, 1)
    const without = await infer(harness, { flags })
    assert.deepEqual(output(without, 'logprobs'), ['null'])
    const none = await infer(harness, {})
    assert.equal(none.outputs.length, 1)
  })

  const refused: readonly (readonly [string, Parts, number, RegExp])[] = [
    ['an unknown model', { model: 'nobody' }, status.NOT_FOUND, /nobody/],
    [
      'an unknown LoRA',
      { texts: sampling({ lora_name: 'x' }) },
      status.NOT_FOUND,
      /LoRA x is not supported, we currently support \[\]/,
    ],
    ['no prompt', { texts: {} }, status.INVALID_ARGUMENT, /text_input: is required/],
    ['bad sampling parameters', { texts: { text_input: 'a', sampling_parameters: '{' } }, status.INVALID_ARGUMENT, /JSON/],
    ['a bad value', { texts: sampling({ temperature: 'hot' }) }, status.INVALID_ARGUMENT, /temperature/],
    ['stream', { flags: { stream: true } }, status.INVALID_ARGUMENT, /ModelStreamInfer/],
  ]
  for (const [name, parts, code, message] of refused) {
    test(`refuses ${name}`, async () => {
      const error = await failure(infer(await start(), parts))
      assert.equal(error.code, code)
      assert.match(error.details, message)
    })
  }

  test('refuses contents that do not fit their tensors', async () => {
    const harness = await start()
    const odd = { ...inferRequest({}), rawInputContents: [Buffer.from([9, 0, 0, 0, 65])] }
    assert.equal((await failure(call((done) => harness.kserve.modelInfer(odd, done)))).code, status.INVALID_ARGUMENT)
    const few = { ...inferRequest({ flags: { stream: false } }), rawInputContents: [Buffer.alloc(5)] }
    assert.equal((await failure(call((done) => harness.kserve.modelInfer(few, done)))).code, status.INVALID_ARGUMENT)
  })
})

describe('ModelStreamInfer', () => {
  type Stream = ClientDuplexStream<ModelInferRequest, ModelStreamInferResponse>

  /** Sends all requests, then reads to the end. */
  async function stream(harness: GrpcHarness, requests: readonly ModelInferRequest[]): Promise<ModelStreamInferResponse[]> {
    const duplex: Stream = harness.kserve.modelStreamInfer()
    for (const request of requests) duplex.write(request)
    duplex.end()
    const messages: ModelStreamInferResponse[] = []
    for await (const message of duplex) messages.push(message as ModelStreamInferResponse)
    return messages
  }

  const ofId = (messages: readonly ModelStreamInferResponse[], id: string) =>
    messages.filter(({ inferResponse }) => inferResponse?.id === id)
  const text = (messages: readonly ModelStreamInferResponse[]) =>
    messages.map(({ inferResponse }) => output(inferResponse, 'text_output')?.[0] ?? '').join('')

  test('streams deltas, the last with the final flag', async () => {
    const harness = await start()
    const flags = { stream: true, return_finish_reason: true, return_num_output_tokens: true }
    const messages = await stream(harness, [inferRequest({ id: 'a', flags })])
    assert.ok(messages.length > 2)
    assert.equal(text(messages), TEXT)
    assert.ok(messages.every(({ errorMessage }) => errorMessage === ''))
    const reasons = messages.map(({ inferResponse }) => output(inferResponse, 'finish_reason')?.[0])
    assert.equal(reasons.at(-1), 'stop')
    assert.ok(reasons.slice(0, -1).every((reason) => reason === 'None'))
    const counts = messages.map(({ inferResponse }) => output(inferResponse, 'num_output_tokens')?.[0] as number)
    assert.equal(
      counts.reduce((sum, count) => sum + count, 0),
      TOKENS.length + 1,
    )
    const finals = messages.map(({ inferResponse }) => finalOf(inferResponse))
    assert.deepEqual(finals.at(-1), TRUE.parameterChoice)
    assert.equal(finals.filter((choice) => choice?.$case === 'boolParam' && choice.boolParam).length, 1)
  })

  test('ends with an empty response when asked to', async () => {
    const harness = await start()
    const parameters = { triton_enable_empty_final_response: TRUE }
    for (const isStream of [true, false]) {
      const messages = await stream(harness, [inferRequest({ parameters, flags: { stream: isStream } })])
      const last = messages.at(-1)?.inferResponse
      assert.equal(last?.outputs.length, 0)
      assert.deepEqual(finalOf(last), TRUE.parameterChoice)
      assert.notDeepEqual(finalOf(messages.at(-2)?.inferResponse), TRUE.parameterChoice)
      assert.equal(text(messages), isStream ? TEXT : `once${TEXT}`)
    }
  })

  test('interleaves requests, and one that fails leaves the others running', async () => {
    const harness = await start()
    await harness.engine.loadAdapter({ name: 'pirate', path: '/p' })
    const messages = await stream(harness, [
      inferRequest({ id: 'one', flags: { stream: true } }),
      inferRequest({ id: 'bad', texts: sampling({ lora_name: 'ghost' }) }),
      inferRequest({ id: 'two', texts: sampling({ lora_name: 'pirate' }), flags: { stream: true } }),
      inferRequest({ id: 'odd', flags: { stream: true, exclude_input_in_output: false } }),
    ])
    assert.equal(text(ofId(messages, 'one')), TEXT)
    assert.equal(text(ofId(messages, 'two')), TEXT)
    const [bad] = ofId(messages, 'bad')
    assert.match(bad?.errorMessage ?? '', /LoRA ghost is not supported, we currently support \['pirate'\]/)
    assert.match(ofId(messages, 'odd')[0]?.errorMessage ?? '', /exclude_input_in_output/)
    const order = messages.map(({ inferResponse }) => inferResponse?.id)
    assert.ok(order.indexOf('two') < order.lastIndexOf('one'), order.join())
  })

  test('a client that cancels ends all of its requests', async () => {
    const harness = await start({ script: () => Array.from({ length: 400 }, () => TOKENS[0] as number) })
    harness.engine.pause()
    const duplex: Stream = harness.kserve.modelStreamInfer()
    duplex.on('error', () => {})
    for (const id of ['a', 'b', 'c']) duplex.write(inferRequest({ id, texts: sampling({ max_tokens: 400 }) }))
    while (harness.engine.numRunning < 3) await new Promise((resolve) => setTimeout(resolve, 5))
    duplex.cancel()
    while (harness.engine.numRunning > 0) await new Promise((resolve) => setTimeout(resolve, 5))
    assert.equal(harness.engine.aborted.length, 3)
  })
})

describe('models', () => {
  test('are live, ready, described and counted', async () => {
    const harness = await start()
    await harness.engine.loadAdapter({ name: 'pirate', path: '/p' })
    const { kserve } = harness
    assert.deepEqual(await call((done) => kserve.serverLive({}, done)), { live: true })
    assert.deepEqual(await call((done) => kserve.serverReady({}, done)), { ready: true })
    const ready = (name: string, version = '') => call((done) => kserve.modelReady({ name, version }, done))
    assert.deepEqual(await ready('demo'), { ready: true })
    assert.deepEqual(await ready('pirate', '1'), { ready: true })
    assert.deepEqual(await ready('pirate', '2'), { ready: false })
    assert.deepEqual(await ready('nobody'), { ready: false })
    const { inputs, outputs, versions } = await call<{ inputs: unknown[]; outputs: unknown[]; versions: string[] }>((done) =>
      kserve.modelMetadata({ name: 'pirate', version: '' }, done),
    )
    assert.deepEqual(versions, ['1'])
    assert.deepEqual(inputs[0], { name: 'text_input', datatype: 'BYTES', shape: [1n] })
    assert.deepEqual(outputs[0], { name: 'text_output', datatype: 'BYTES', shape: [-1n] })
    const unknown = await failure(call((done) => kserve.modelMetadata({ name: 'nobody', version: '' }, done)))
    assert.equal(unknown.code, status.NOT_FOUND)
    const { config } = await call<{ config: { modelTransactionPolicy?: { decoupled: boolean }; maxBatchSize: number } }>(
      (done) => kserve.modelConfig({ name: 'demo', version: '' }, done as never),
    )
    assert.equal(config.modelTransactionPolicy?.decoupled, true)
    assert.equal(config.maxBatchSize, 0)
    await infer(harness, { model: 'pirate' })
    const { modelStats } = await call<{ modelStats: { name: string; inferenceCount: bigint }[] }>((done) =>
      kserve.modelStatistics({ name: '', version: '' }, done),
    )
    assert.deepEqual(
      modelStats.map(({ name, inferenceCount }) => [name, inferenceCount]),
      [
        ['demo', 0n],
        ['pirate', 1n],
      ],
    )
    harness.engine.state = 'dead'
    assert.deepEqual(await call((done) => kserve.serverLive({}, done)), { live: true })
    assert.deepEqual(await call((done) => kserve.serverReady({}, done)), { ready: false })
  })

  test('are loaded and unloaded through the repository', async () => {
    const harness = await start()
    const { kserve } = harness
    const repositoryName = ''
    const loraPath = (path: string) => ({
      lora_path: { parameterChoice: { $case: 'stringParam' as const, stringParam: path } },
    })
    await call((done) => kserve.repositoryModelLoad({ repositoryName, modelName: 'demo', parameters: {} }, done))
    assert.equal(harness.engine.loads.length, 0)
    await call((done) => kserve.repositoryModelLoad({ repositoryName, modelName: 'a', parameters: loraPath('/tmp') }, done))
    await call((done) => kserve.repositoryModelLoad({ repositoryName, modelName: 'a', parameters: {} }, done))
    assert.equal(harness.engine.loads.length, 2)
    const { models } = await call<{ models: { name: string; state: string }[] }>((done) =>
      kserve.repositoryIndex({ repositoryName, ready: true }, done),
    )
    assert.deepEqual(
      models.map(({ name, state }) => [name, state]),
      [
        ['demo', 'READY'],
        ['a', 'READY'],
      ],
    )
    await call((done) => kserve.repositoryModelUnload({ repositoryName, modelName: 'a', parameters: {} }, done))
    const missing = await failure(
      call((done) => kserve.repositoryModelLoad({ repositoryName, modelName: 'b', parameters: {} }, done)),
    )
    assert.equal(missing.code, status.INVALID_ARGUMENT)
  })
})
