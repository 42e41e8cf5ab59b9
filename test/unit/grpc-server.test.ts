// What holds for every gRPC service: keys, limits, health, reflection, TLS and draining.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { afterEach, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { BinaryReader, BinaryWriter } from '@bufbuild/protobuf/wire'
import { Client, credentials, makeClientConstructor, type ServiceError, status } from '@grpc/grpc-js'
import { service as healthService } from 'grpc-health-check'
import { LorikeetError } from '../../src/errors.ts'
import {
  call,
  collect,
  connect,
  detailTypes,
  disconnect,
  failure,
  type GrpcClients,
  type GrpcHarness,
  type GrpcHarnessOptions,
  generateRequest,
  metadata,
  startGrpcHarness,
} from '../support/grpc-harness.ts'

const harnesses: GrpcHarness[] = []

async function start(options: GrpcHarnessOptions = {}): Promise<GrpcHarness> {
  const harness = await startGrpcHarness(options)
  harnesses.push(harness)
  return harness
}
afterEach(async () => {
  for (const harness of harnesses.splice(0)) await harness.close()
})

interface HealthClient extends Client {
  check(request: { service: string }, done: (error: ServiceError | null, response: { status: string }) => void): void
  list(request: object, done: (error: ServiceError | null, response: { statuses: object }) => void): void
  watch(request: { service: string }): AsyncIterable<{ status: string }> & { on(event: 'error', listener: () => void): void }
}

function healthClient({ address }: GrpcHarness): HealthClient {
  const HealthConstructor = makeClientConstructor(healthService, 'Health') as unknown as new (
    ...args: ConstructorParameters<typeof Client>
  ) => HealthClient
  return new HealthConstructor(address, credentials.createInsecure())
}

describe('keys', () => {
  const models = ({ inference }: GrpcClients, key: string | null) =>
    call((done) => inference.listModels({}, metadata(key === null ? {} : { authorization: key }), done))

  test('are asked for in the metadata, by every kind of call', async () => {
    const harness = await start({ server: { apiKeys: ['good', 'other'] } })
    await models(harness, 'Bearer good')
    await models(harness, 'bearer other')
    for (const key of [null, 'Bearer bad', 'good', 'Bearer good2']) {
      const error = await failure(models(harness, key))
      assert.equal(error.code, status.UNAUTHENTICATED)
      assert.deepEqual(detailTypes(error), ['ErrorInfo'])
    }
    const streamed = await failure(collect(harness.inference.generateStream(generateRequest({ text: 'a' }))))
    assert.equal(streamed.code, status.UNAUTHENTICATED)
    const duplex = harness.kserve.modelStreamInfer()
    assert.equal((await failure(collect(duplex))).code, status.UNAUTHENTICATED)
    const ready = await failure(call((done) => harness.kserve.modelReady({ name: 'demo', version: '' }, done)))
    assert.equal(ready.code, status.UNAUTHENTICATED)
    assert.equal(harness.engine.submitted.length, 0)
  })

  test('are not asked for by probes', async () => {
    const harness = await start({ server: { apiKeys: ['good'] } })
    const client = healthClient(harness)
    assert.equal((await call<{ status: string }>((done) => client.check({ service: '' }, done))).status, 'SERVING')
    client.close()
    assert.deepEqual(await call((done) => harness.kserve.serverReady({}, done)), { ready: true })
    assert.ok((await reflect(harness, 'v1', LIST_SERVICES)).length > 0)
  })
})

test('a message over the limit is refused', async () => {
  const harness = await start({ grpc: { maxMessageBytes: 4096 } })
  const ids = Array.from({ length: 5000 }, () => 5)
  const request = generateRequest({ input: { $case: 'tokenIds', tokenIds: { ids } } })
  const error = await failure(call((done) => harness.inference.generate(request, done)))
  assert.equal(error.code, status.RESOURCE_EXHAUSTED)
})

test('what is not a message, and what is not there, has a status of its own', async () => {
  const harness = await start()
  const client = new Client(harness.address, credentials.createInsecure())
  const raw = (path: string, bytes: Buffer) =>
    failure(
      call((done) =>
        client.makeUnaryRequest(
          path,
          (value: Buffer) => value,
          (value) => value,
          bytes,
          done as never,
        ),
      ),
    )
  assert.equal((await raw('/lorikeet.v1.Inference/Generate', Buffer.from([255, 255, 255]))).code, status.INTERNAL)
  assert.equal((await raw('/inference.GRPCInferenceService/TraceSetting', Buffer.alloc(0))).code, status.UNIMPLEMENTED)
  client.close()
})

describe('health', () => {
  test('is known for the server and each service', async () => {
    const harness = await start()
    const client = healthClient(harness)
    const check = (service: string) => call<{ status: string }>((done) => client.check({ service }, done))
    for (const name of ['', 'lorikeet.v1.Inference', 'lorikeet.v1.Adapters', 'inference.GRPCInferenceService']) {
      assert.equal((await check(name)).status, 'SERVING')
    }
    assert.equal((await failure(check('nobody'))).code, status.NOT_FOUND)
    const { statuses } = await call<{ statuses: object }>((done) => client.list({}, done))
    assert.equal(Object.keys(statuses).length, 4)
    client.close()
  })

  test('turns when the engine dies, comes back with it, and ends with the server', async () => {
    const harness = await start()
    const client = healthClient(harness)
    const watch = client.watch({ service: '' })
    watch.on('error', () => {})
    const states = watch[Symbol.asyncIterator]()
    const next = async () => ((await states.next()).value as { status: string }).status
    assert.equal(await next(), 'SERVING')
    harness.engine.state = 'dead'
    assert.equal(await next(), 'NOT_SERVING')
    harness.engine.state = 'ready'
    assert.equal(await next(), 'SERVING')
    const closing = harness.server.close(0)
    assert.equal(await next(), 'NOT_SERVING')
    await closing
    client.close()
  })
})

test('draining refuses what is new and finishes what runs', async () => {
  const harness = await start({ script: () => [300, 301, 302, 2] })
  harness.engine.pause()
  const running = collect(harness.inference.generateStream(generateRequest({ text: 'a' })))
  while (harness.engine.numRunning === 0) await new Promise((resolve) => setTimeout(resolve, 5))
  const closing = harness.server.close(10_000)
  const refused = await failure(call((done) => harness.inference.generate(generateRequest({ text: 'b' }), done)))
  assert.equal(refused.code, status.UNAVAILABLE)
  assert.deepEqual(detailTypes(refused), ['ErrorInfo', 'RetryInfo'])
  harness.engine.resume()
  const events = await running
  assert.equal(events.at(-1)?.event?.$case, 'usage')
  await closing
})

const LIST_SERVICES = new BinaryWriter()
  .uint32((7 << 3) | 2)
  .string('*')
  .finish()
const symbol = (name: string) =>
  new BinaryWriter()
    .uint32((4 << 3) | 2)
    .string(name)
    .finish()

/** Payloads of the length-delimited fields `number` of a message. */
function fields(message: Uint8Array, number: number): Uint8Array[] {
  const reader = new BinaryReader(message)
  const found: Uint8Array[] = []
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag()
    if (field === number && wireType === 2) found.push(reader.bytes())
    else reader.skip(wireType, field)
  }
  return found
}

/** The response of the server to one reflection request. */
async function reflect({ address }: GrpcHarness, version: string, request: Uint8Array): Promise<Uint8Array> {
  const client = new Client(address, credentials.createInsecure())
  const raw = (value: Uint8Array) => Buffer.from(value)
  const path = `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`
  const duplex = client.makeBidiStreamRequest<Uint8Array, Buffer>(path, raw, raw)
  duplex.end(request)
  const [response] = await collect<Buffer>(duplex as AsyncIterable<Buffer>)
  client.close()
  return response ?? assert.fail('no response')
}

describe('reflection', () => {
  for (const version of ['v1', 'v1alpha']) {
    test(`${version} lists the services and hands out their files`, async () => {
      const harness = await start()
      const [list = assert.fail()] = fields(await reflect(harness, version, LIST_SERVICES), 6)
      const names = fields(list, 1).map((entry) => Buffer.from(fields(entry, 1)[0] ?? []).toString())
      assert.deepEqual(names.sort(), ['inference.GRPCInferenceService', 'lorikeet.v1.Adapters', 'lorikeet.v1.Inference'])
      const [files = assert.fail()] = fields(await reflect(harness, version, symbol('inference.GRPCInferenceService')), 4)
      const fileNames = fields(files, 1).map((file) => Buffer.from(fields(file, 1)[0] ?? []).toString())
      assert.deepEqual(fileNames.sort(), ['inference/grpc_service.proto', 'inference/model_config.proto'])
      assert.equal(fields(await reflect(harness, version, symbol('no.Such')), 7).length, 1)
    })
  }

  test('can be turned off', async () => {
    const harness = await start({ grpc: { hasReflection: false } })
    assert.equal((await failure(reflect(harness, 'v1', LIST_SERVICES))).code, status.UNIMPLEMENTED)
  })
})

describe('TLS', () => {
  const file = (name: string) => fileURLToPath(new URL(`../fixtures/tls/${name}`, import.meta.url))
  const pem = (name: string) => readFileSync(file(name))
  const tls = { certFile: file('server.pem'), keyFile: file('server.key'), clientCaFile: null }
  const live = (clients: GrpcClients) =>
    call((done) => clients.kserve.serverLive({}, metadata({}), { deadline: Date.now() + 5000 }, done)).finally(() =>
      disconnect(clients),
    )

  test('serves those who know the authority, and no cleartext', async () => {
    const harness = await start({ grpc: { tls } })
    assert.deepEqual(await live(connect(harness.address, credentials.createSsl(pem('ca.pem')))), { live: true })
    assert.equal((await failure(live(connect(harness.address)))).code, status.UNAVAILABLE)
  })

  test('asks for client certificates when it has an authority for them', async () => {
    const harness = await start({ grpc: { tls: { ...tls, clientCaFile: file('ca.pem') } } })
    const known = credentials.createSsl(pem('ca.pem'), pem('client.key'), pem('client.pem'))
    assert.deepEqual(await live(connect(harness.address, known)), { live: true })
    assert.equal((await failure(live(connect(harness.address, credentials.createSsl(pem('ca.pem')))))).code, status.UNAVAILABLE)
  })

  test('names the option whose file cannot be read', async () => {
    const starting = startGrpcHarness({ grpc: { tls: { ...tls, keyFile: '/nowhere' } } })
    await assert.rejects(
      starting,
      (error) => error instanceof LorikeetError && /^--grpc-tls-key: /.test(error.message) && error.code === 'CONFIG_INVALID',
    )
  })
})

test('a port that is taken is refused by name', async () => {
  const harness = await start()
  const port = Number(harness.address.split(':')[1])
  await assert.rejects(startGrpcHarness({ port }), /^LorikeetError: --grpc-port: listen EADDRINUSE.*--no-grpc/)
})
