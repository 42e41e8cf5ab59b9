// gRPC against the built server: the demo texts, and storms of clients that leave.

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
import { call, collect, connect, disconnect, type GrpcClients, generateRequest, metadata } from '../support/grpc-harness.ts'
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

describe('clients that leave', () => {
  const NUM_CLIENTS = 200
  const ADAPTERS = ['', 'pirate', 'robot', 'space']
  let running: Running
  before(async () => {
    // Few places, so that most clients leave while they wait.
    running = await start('null', '--max-num-seqs', '16')
  })
  after(() => stop(running))

  async function gauge(name: string): Promise<number> {
    const text = await (await fetch(`${running.server.url}/metrics`)).text()
    const line = text.split('\n').find((one) => one.startsWith(`${name}{`))
    assert.ok(line, name)
    return Number(line.slice(line.lastIndexOf(' ') + 1))
  }

  /** Cancels at once, after some milliseconds or after some events, or has a short deadline; every fourth call is unary. */
  async function leave(index: number): Promise<void> {
    const { inference } = running.clients
    const ids = Array.from({ length: 1 + ((index * 37) % 300) }, (_, i) => 3 + ((i * 7 + index) % 500))
    const request = generateRequest({
      input: { $case: 'tokenIds', tokenIds: { ids } },
      adapter: ADAPTERS[index % 4] ?? '',
      stopping: { maxTokens: 200, ignoreEos: true },
    })
    const options = index % 3 === 0 ? { deadline: Date.now() + ((index * 13) % 150) } : {}
    if (index % 4 === 1) {
      await new Promise<void>((resolve) => {
        const running = inference.generate(request, metadata({}), options, () => resolve())
        if (index % 3 !== 0) setTimeout(() => running.cancel(), (index * 7) % 100)
      })
      return
    }
    const stream = inference.generateStream(request, metadata({}), options)
    const ended = new Promise<void>((resolve) => stream.once('close', resolve).once('error', () => resolve()))
    let numLeft = index % 7
    stream.on('data', () => {
      if (index % 3 !== 0 && numLeft-- <= 0) stream.cancel()
    })
    if (index % 5 === 0) stream.cancel()
    await ended
  }

  test('by cancelling or by deadline leave nothing behind', async () => {
    await Promise.all(Array.from({ length: NUM_CLIENTS }, (_, index) => leave(index)))
    for (const name of ['vllm:num_requests_running', 'vllm:num_requests_waiting', 'vllm:kv_cache_usage_perc']) {
      while ((await gauge(name)) > 0) await new Promise((resolve) => setTimeout(resolve, 20))
    }
    const { server_load: load } = (await (await fetch(`${running.server.url}/load`)).json()) as { server_load: number }
    assert.equal(load, 0)
    const answer = await call<GenerateResponse>((done) =>
      running.clients.inference.generate(
        generateRequest({ text: 'a', adapter: 'pirate', stopping: { maxTokens: 8, ignoreEos: true } }),
        done,
      ),
    )
    assert.equal(answer.usage?.completionTokens, 8)
    const reasons = running.server.logs.filter((line) => line.msg === 'request').map((line) => line['finishReason'])
    assert.ok(reasons.includes('abort'))
    assert.ok(!reasons.includes('error'))
  })
})
