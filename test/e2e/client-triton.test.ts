// A client that knows nothing but Triton's protos, as its JavaScript example does: messages are plain objects.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import {
  type ClientDuplexStream,
  credentials,
  loadPackageDefinition,
  Metadata,
  type ServiceClientConstructor,
  status,
} from '@grpc/grpc-js'
import { loadSync } from '@grpc/proto-loader'
import {
  API_KEY,
  abortedCall,
  BASE,
  BASE_NAME,
  freePort,
  NUM_BASE_TOKENS,
  PIRATE,
  startClientServer,
} from '../support/client-server.ts'
import { collect } from '../support/grpc-harness.ts'
import { ROOT, type ServerProcess } from '../support/server-process.ts'
import { bytesTensor } from '../support/triton-request.ts'

interface InferResponse {
  readonly model_name: string
  readonly id: string
  readonly parameters: Readonly<Record<string, { readonly bool_param?: boolean }>>
  readonly outputs: readonly { readonly name: string; readonly datatype: string; readonly shape: readonly string[] }[]
  readonly raw_output_contents: readonly Buffer[]
}

interface StreamResponse {
  readonly error_message: string
  readonly infer_response: InferResponse
}

const proto = loadPackageDefinition(
  loadSync('inference/grpc_service.proto', {
    includeDirs: [join(ROOT, 'proto')],
    keepCase: true,
    longs: String,
    defaults: true,
  }),
)
const { GRPCInferenceService } = proto['inference'] as unknown as { GRPCInferenceService: ServiceClientConstructor }

let server: ServerProcess
let client: InstanceType<ServiceClientConstructor>
before(async () => {
  const port = await freePort()
  server = await startClientServer('--grpc', '--grpc-port', String(port))
  client = new GRPCInferenceService(`127.0.0.1:${port}`, credentials.createInsecure())
})
after(async () => {
  client.close()
  await server.stop()
})

function withKey(key = API_KEY): Metadata {
  const metadata = new Metadata()
  metadata.set('authorization', `Bearer ${key}`)
  return metadata
}

function unary<Response>(method: string, request: object, metadata = withKey()): Promise<Response> {
  return new Promise((resolve, reject) => {
    client[method]?.call(client, request, metadata, (error: Error | null, response: Response) => {
      if (error === null) resolve(response)
      else reject(error)
    })
  })
}

function stream(): ClientDuplexStream<object, StreamResponse> {
  return client['ModelStreamInfer']?.call(client, withKey()) as ClientDuplexStream<object, StreamResponse>
}

interface Wanted {
  readonly id?: string
  readonly adapter?: string
  readonly isStream?: boolean
  readonly parameters?: object
}

function inferRequest(model: string, text: string, numTokens: number, wanted: Wanted = {}): object {
  const sampling = JSON.stringify({
    temperature: '0',
    max_tokens: String(numTokens),
    ...(wanted.adapter === undefined ? {} : { lora_name: wanted.adapter }),
    ...wanted.parameters,
  })
  const inputs = [
    ['text_input', 'BYTES', bytesTensor(text)],
    ['stream', 'BOOL', Buffer.from([wanted.isStream ? 1 : 0])],
    ['sampling_parameters', 'BYTES', bytesTensor(sampling)],
    ['exclude_input_in_output', 'BOOL', Buffer.from([1])],
  ] as const
  return {
    model_name: model,
    id: wanted.id ?? '',
    inputs: inputs.map(([name, datatype]) => ({ name, datatype, shape: [1] })),
    outputs: [{ name: 'text_output' }],
    raw_input_contents: inputs.map(([, , content]) => content),
  }
}

function textOf({ outputs, raw_output_contents: raw }: InferResponse): string {
  const index = outputs.findIndex(({ name }) => name === 'text_output')
  return index < 0 ? '' : (raw[index] as Buffer).subarray(4).toString()
}

test('it sees a live server and its models', async () => {
  assert.deepEqual(await unary('ServerLive', {}), { live: true })
  assert.deepEqual(await unary('ServerReady', {}), { ready: true })
  for (const name of [BASE_NAME, 'pirate']) assert.deepEqual(await unary('ModelReady', { name }), { ready: true })
  assert.deepEqual(await unary('ModelReady', { name: 'nobody' }), { ready: false })
  const metadata = await unary<{ inputs: { name: string }[] }>('ModelMetadata', { name: 'pirate' })
  assert.ok(metadata.inputs.some(({ name }) => name === 'text_input'))
})

test('the base model and an adapter, by model and by sampling parameters', async () => {
  const base = textOf(await unary('ModelInfer', inferRequest(BASE_NAME, BASE.prompt, NUM_BASE_TOKENS)))
  assert.ok(base !== '' && BASE.text.startsWith(base))
  const numTokens = PIRATE.tokenIds.length
  const byModel = await unary<InferResponse>('ModelInfer', inferRequest('pirate', PIRATE.prompt, numTokens))
  assert.equal(textOf(byModel), PIRATE.text)
  const byName = inferRequest(BASE_NAME, PIRATE.prompt, numTokens, { adapter: 'pirate' })
  assert.equal(textOf(await unary('ModelInfer', byName)), PIRATE.text)
})

test('streams of base and adapter on one call, told apart by id', async () => {
  const call = stream()
  const numTokens = PIRATE.tokenIds.length
  call.write(inferRequest(BASE_NAME, PIRATE.prompt, numTokens, { id: 'base', isStream: true }))
  call.write(inferRequest('pirate', PIRATE.prompt, numTokens, { id: 'pirate', isStream: true }))
  call.end()
  const responses = await collect(call)
  const textFor = (wanted: string) =>
    responses
      .filter(({ infer_response: { id } }) => id === wanted)
      .map(({ infer_response: response }) => textOf(response))
      .join('')
  assert.equal(textFor('pirate'), PIRATE.text)
  assert.notEqual(textFor('base'), PIRATE.text)
  assert.ok(responses.length > 10)
  assert.ok(responses.every(({ error_message: message }) => message === ''))
})

test('cancelling a stream ends it in the server', async () => {
  const call = stream()
  call.on('error', () => {})
  call.write(inferRequest(BASE_NAME, 'One day', 400, { isStream: true }))
  await new Promise((resolve) => call.once('data', resolve))
  call.cancel()
  assert.ok((await abortedCall(server)) < 400)
})

test('errors have the status they should', async () => {
  const failsWith = (request: object, code: number, message: RegExp, metadata = withKey()) =>
    assert.rejects(unary('ModelInfer', request, metadata), (error: Error & { code?: number }) => {
      assert.equal(error.code, code, error.message)
      assert.match(error.message, message)
      return true
    })
  await failsWith(inferRequest('nobody', 'x', 4), status.NOT_FOUND, /nobody/)
  await failsWith(inferRequest('pirate', 'x', 4), status.UNAUTHENTICATED, /Incorrect API key/, withKey('wrong'))
  await failsWith(inferRequest('pirate', 'x', 100_000), status.INVALID_ARGUMENT, /maximum context length/)
  await failsWith(inferRequest('pirate', 'x', 4, { parameters: { top_p: 7 } }), status.INVALID_ARGUMENT, /top_p/)
})

test('a bad request on a stream leaves the others alone', async () => {
  const call = stream()
  call.write(inferRequest('nobody', 'x', 4, { id: 'bad', isStream: true }))
  call.write(inferRequest('pirate', PIRATE.prompt, 8, { id: 'good', isStream: true }))
  call.end()
  const responses = await collect(call)
  const bad = responses.filter(({ infer_response: { id } }) => id === 'bad')
  assert.equal(bad.length, 1)
  assert.match(bad[0]!.error_message, /nobody/)
  const good = responses.filter(({ infer_response: { id } }) => id === 'good')
  assert.ok(PIRATE.text.startsWith(good.map(({ infer_response: response }) => textOf(response)).join('')))
  assert.ok(good.length > 1)
})
