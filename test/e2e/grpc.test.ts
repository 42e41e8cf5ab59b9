// gRPC against the built server: its port and the demo texts.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { after, before, describe, test } from 'node:test'
import type {
  GenerateRequest,
  GenerateResponse,
  GenerateStreamResponse,
} from '../../src/server/grpc/generated/lorikeet/v1/inference.ts'
import { freePort } from '../support/client-server.ts'
import { adapterCases, baseCase, type DemoCase } from '../support/demo-cases.ts'
import { call, collect, connect, disconnect, type GrpcClients, generateRequest } from '../support/grpc-harness.ts'
import { DEMO_ADAPTERS, DEMO_MODEL, ServerProcess } from '../support/server-process.ts'

interface Running {
  readonly server: ServerProcess
  readonly clients: GrpcClients
}

async function start(backend: string, ...flags: string[]): Promise<Running> {
  const port = await freePort()
  const server = await ServerProcess.start([
    ...['--model', DEMO_MODEL, '--backend', backend, '--adapter-dir', DEMO_ADAPTERS],
    ...['--grpc', '--grpc-port', String(port), ...flags],
  ])
  return { server, clients: connect(`127.0.0.1:${port}`) }
}

async function stop({ server, clients }: Running): Promise<void> {
  disconnect(clients)
  assert.equal(await server.stop(), 0)
}

describe('the port', () => {
  test('that nobody named and somebody has leaves the server without gRPC', async () => {
    // The default port may be taken already, which serves as well.
    const squatter = createServer().on('error', () => {})
    squatter.listen(50_051, '127.0.0.1')
    await Promise.race([once(squatter, 'listening'), once(squatter, 'error')])
    try {
      const server = await ServerProcess.start(['--model', DEMO_MODEL, '--backend', 'null', '--grpc'])
      assert.match(server.stdout + server.stderr, /serving without gRPC: --grpc-port: .*EADDRINUSE/)
      assert.equal(await server.stop(), 0)
    } finally {
      squatter.close()
    }
  })
})

describe('demo texts', () => {
  let running: Running
  before(async () => {
    running = await start('reference')
  })
  after(() => stop(running))

  function requestOf(item: DemoCase): GenerateRequest {
    return generateRequest({
      text: item.prompt,
      adapter: item.adapter ?? '',
      sampling: { temperature: 0 },
      stopping: { maxTokens: item.tokenIds.length },
      output: { tokenIds: true },
    })
  }
  const cases = [baseCase(), ...['pirate', 'robot', 'space'].flatMap(adapterCases)]

  test('are exact, whole and streamed, all at once', async () => {
    const { inference } = running.clients
    const whole = cases.map(async (item) => {
      const { choices } = await call<GenerateResponse>((done) => inference.generate(requestOf(item), done))
      assert.equal(choices[0]?.text, item.text)
      assert.deepEqual(choices[0]?.tokenIds, item.tokenIds)
    })
    const streamed = cases.map(async (item) => {
      const events = await collect<GenerateStreamResponse>(inference.generateStream(requestOf(item)))
      const deltas = events.flatMap(({ event }) => (event?.$case === 'delta' ? [event.delta] : []))
      assert.equal(deltas.map(({ text }) => text).join(''), item.text)
      assert.deepEqual(
        deltas.flatMap(({ tokenIds }) => tokenIds),
        item.tokenIds,
      )
      const [first] = events
      assert.ok(first?.event?.$case === 'started')
      assert.deepEqual(first.event.started.promptTokenIds, item.promptIds)
    })
    await Promise.all([...whole, ...streamed])
  })
})
