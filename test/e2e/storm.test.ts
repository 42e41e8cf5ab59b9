// Clients of every protocol that leave, stall or run out of time, all at once: everything they held comes back.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type IncomingMessage, request } from 'node:http'
import { connect as connectSocket, type Socket } from 'node:net'
import { after, before, test } from 'node:test'
import type { GenerateResponse } from '../../src/server/grpc/generated/lorikeet/v1/inference.ts'
import { freePort } from '../support/client-server.ts'
import { call, connect, disconnect, type GrpcClients, generateRequest, metadata } from '../support/grpc-harness.ts'
import { DEMO_ADAPTERS, DEMO_MODEL, ServerProcess } from '../support/server-process.ts'
import { tritonRequest } from '../support/triton-request.ts'

const NUM_CLIENTS = 300
const ADAPTERS = ['', 'pirate', 'robot', 'space']
const NUM_TOKENS = 200
/** Gauges that are at rest when nothing runs; each with its labels. */
const GAUGE =
  /^(?:vllm:(?:num_requests_(?:running|waiting)\w*|(?:gpu_|kv_)cache_usage_perc)|lorikeet_adapter_(?:queue_depth|state|bytes|memory_bytes|slots_used))(?:\{| )/

let server: ServerProcess
let address: string
let clients: GrpcClients
before(async () => {
  const port = await freePort()
  server = await ServerProcess.start([
    ...['--model', DEMO_MODEL, '--backend', 'null', '--adapter-dir', DEMO_ADAPTERS],
    // Few places, so that most clients leave while they wait.
    ...['--max-num-seqs', '16', '--grpc', '--grpc-port', String(port)],
  ])
  address = `127.0.0.1:${port}`
  clients = connect(address)
})
after(async () => {
  disconnect(clients)
  assert.equal(await server.stop(), 0)
})

const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))
const promptOf = (index: number) => Array.from({ length: 1 + ((index * 37) % 300) }, (_, i) => 3 + ((i * 7 + index) % 500))
const adapterOf = (index: number) => ADAPTERS[index % ADAPTERS.length] as string

function restBody(index: number): { path: string; body: object } {
  const adapter = adapterOf(index)
  if (index % 4 === 1) {
    const parameters = { max_new_tokens: NUM_TOKENS, ignore_eos_token: true, do_sample: true }
    const named = adapter === '' ? parameters : { ...parameters, adapter_id: adapter }
    return { path: index % 8 === 1 ? '/generate_stream' : '/generate', body: { inputs: 'Once upon a time', parameters: named } }
  }
  const body = { model: adapter, prompt: promptOf(index), max_tokens: NUM_TOKENS, stream: index % 5 !== 0, ignore_eos: true }
  return { path: index % 4 === 2 ? '/invocations' : '/v1/completions', body }
}

/** Leaves at once, after some milliseconds, or after some events. */
async function leaveRest(index: number): Promise<void> {
  const { path, body } = restBody(index)
  const headers = { 'content-type': 'application/json' }
  const sent = request(`${server.url}${path}`, { method: 'POST', headers, agent: false })
  sent.on('error', () => {})
  sent.end(JSON.stringify(body))
  if (index % 3 === 0) {
    await wait((index * 13) % 150)
  } else {
    const [response] = (await Promise.race([once(sent, 'response'), once(sent, 'close')])) as [IncomingMessage | undefined]
    for (let i = 0; i < index % 7 && response !== undefined && !response.readableEnded; i++) {
      await Promise.race([once(response, 'data'), once(response, 'end')])
    }
  }
  sent.destroy()
}

/** Cancels at once, after some milliseconds or after some events, or has a short deadline; every fourth call is unary. */
async function leaveGrpc(index: number): Promise<void> {
  const message = generateRequest({
    input: { $case: 'tokenIds', tokenIds: { ids: promptOf(index) } },
    adapter: adapterOf(index),
    stopping: { maxTokens: NUM_TOKENS, ignoreEos: true },
  })
  const hasDeadline = index % 3 === 0
  const options = hasDeadline ? { deadline: Date.now() + ((index * 13) % 150) } : {}
  if (index % 4 === 1) {
    await new Promise<void>((resolve) => {
      const running = clients.inference.generate(message, metadata({}), options, () => resolve())
      if (!hasDeadline) setTimeout(() => running.cancel(), (index * 7) % 100)
    })
    return
  }
  const stream = clients.inference.generateStream(message, metadata({}), options)
  const ended = new Promise<void>((resolve) => stream.once('close', resolve).once('error', () => resolve()))
  let numLeft = index % 7
  stream.on('data', () => {
    if (!hasDeadline && numLeft-- <= 0) stream.cancel()
  })
  if (index % 5 === 0) stream.cancel()
  await ended
}

/** Several requests on one call of Triton's, which is cancelled, cut by its deadline, or loses its connection. */
async function leaveTriton(index: number): Promise<void> {
  const own = index % 4 === 0 ? connect(address) : null
  const options = index % 3 === 0 ? { deadline: Date.now() + 20 + ((index * 11) % 150) } : {}
  const stream = (own ?? clients).kserve.modelStreamInfer(metadata({}), options)
  const ended = new Promise<void>((resolve) => stream.once('close', resolve).once('error', () => resolve()))
  for (let i = 0; i <= index % 3; i++) {
    stream.write(tritonRequest({ id: String(i), adapter: adapterOf(index + i), maxTokens: NUM_TOKENS, isStream: true }))
  }
  if (index % 5 === 0) stream.end()
  let numLeft = index % 11
  stream.on('data', () => {
    if (index % 3 !== 0 && numLeft-- <= 0) stream.cancel()
  })
  if (own !== null) {
    await wait((index * 5) % 60)
    disconnect(own)
    stream.cancel()
  }
  await ended
}

async function gauges(): Promise<Record<string, number>> {
  const text = await (await fetch(`${server.url}/metrics`)).text()
  const lines = text.split('\n').filter((line) => GAUGE.test(line))
  const [lora] = text.split('\n').filter((line) => line.startsWith('vllm:lora_requests_info{'))
  const labels = /(waiting_lora_adapters="[^"]*").*(running_lora_adapters="[^"]*")/.exec(lora ?? '')
  const values = Object.fromEntries(
    lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]),
  )
  return { ...values, [`${labels?.[1]},${labels?.[2]}`]: 1 }
}

async function complete(model: string): Promise<number> {
  const answer = await fetch(`${server.url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model, prompt: [5, 6, 7], max_tokens: 8, ignore_eos: true }),
  })
  assert.equal(answer.status, 200)
  return ((await answer.json()) as { usage: { completion_tokens: number } }).usage.completion_tokens
}

/** The gauges are sent with every step and when the engine falls idle: a moment after the last request. */
async function restingGauges(expected: Record<string, number>): Promise<Record<string, number>> {
  for (let i = 0; i < 100; i++) {
    const now = await gauges()
    if (JSON.stringify(now) === JSON.stringify(expected)) return now
    await wait(50)
  }
  return gauges()
}

test('a storm of clients of all protocols that leave or run out of time leaves nothing behind', async () => {
  // Every adapter has its place on the device before the storm, and keeps it.
  for (const adapter of ADAPTERS) await complete(adapter)
  const isIdle = async () =>
    Object.entries(await gauges()).every(([name, value]) => !/num_requests|usage/.test(name) || value === 0)
  while (!(await isIdle())) await wait(20)
  const resting = await gauges()
  assert.ok(Object.keys(resting).length > 10, JSON.stringify(resting))
  assert.ok(Object.hasOwn(resting, 'waiting_lora_adapters="",running_lora_adapters=""'), JSON.stringify(resting))

  const leave = [leaveRest, leaveGrpc, leaveTriton]
  await Promise.all(Array.from({ length: NUM_CLIENTS }, (_, i) => leave[i % 3]?.(Math.floor(i / 3))))
  assert.deepEqual(await restingGauges(resting), resting)
  const { server_load: load } = (await (await fetch(`${server.url}/load`)).json()) as { server_load: number }
  assert.equal(load, 0)

  for (const adapter of ADAPTERS) assert.equal(await complete(adapter), 8)
  const answer = await call<GenerateResponse>((done) =>
    clients.inference.generate(
      generateRequest({ text: 'a', adapter: 'pirate', stopping: { maxTokens: 8, ignoreEos: true } }),
      done,
    ),
  )
  assert.equal(answer.usage?.completionTokens, 8)
  const reasons = server.logs.filter((line) => line.msg === 'request').map((line) => String(line['finishReason']))
  assert.ok(reasons.filter((reason) => reason.includes('abort')).length > NUM_CLIENTS / 4)
  assert.ok(!reasons.some((reason) => reason.includes('error')))
})

test('HTTP clients that close their half of the connection get an answer or an end', async () => {
  const send = (body: object, isWhole: boolean) => {
    const json = JSON.stringify(body)
    const head = ['POST /v1/completions HTTP/1.1', 'host: x', 'content-type: application/json']
    const text = `${head.join('\r\n')}\r\ncontent-length: ${json.length + (isWhole ? 0 : 10)}\r\n\r\n${json}`
    const { hostname, port } = new URL(server.url)
    const socket: Socket = connectSocket({ host: hostname, port: Number(port), allowHalfOpen: true })
    const closed = once(socket, 'close')
    socket.on('error', () => {}).resume()
    // The end of their half comes with the body, or while the answer is made.
    socket.write(text)
    setTimeout(() => socket.end(), isWhole ? 5 : 0)
    socket.once('end', () => socket.destroy())
    return closed
  }
  const body = { prompt: [5, 6, 7], max_tokens: NUM_TOKENS, ignore_eos: true }
  const sockets = Array.from({ length: 12 }, (_, i) => send({ ...body, stream: i % 2 === 0 }, i % 3 !== 0))
  await Promise.all(sockets)
  for (;;) {
    const { server_load: load } = (await (await fetch(`${server.url}/load`)).json()) as { server_load: number }
    if (load === 0) break
    await wait(20)
  }
})

test('a gRPC client that has said all it will gets every answer', async () => {
  const stream = clients.kserve.modelStreamInfer()
  for (const adapter of ADAPTERS) {
    stream.write(tritonRequest({ id: `of ${adapter}`, adapter, maxTokens: 20, isStream: false }))
  }
  stream.end()
  const ids: string[] = []
  for await (const { errorMessage, inferResponse } of stream) {
    assert.equal(errorMessage, '')
    ids.push(String(inferResponse?.id))
  }
  assert.deepEqual(ids.sort(), ADAPTERS.map((adapter) => `of ${adapter}`).sort())
})
