// What needs real sockets: readers that leave, readers that lag, and draining.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type ClientRequest, type IncomingMessage, request } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { test } from 'node:test'
import { type Harness, type HarnessOptions, parseEvents, startHarness } from '../support/http-harness.ts'

async function withSocket(options: HarnessOptions, work: (harness: Harness, port: number) => Promise<void>): Promise<void> {
  const harness = await startHarness(options)
  await harness.server.listen()
  try {
    await work(harness, (harness.server.app.server.address() as AddressInfo).port)
  } finally {
    await harness.close()
  }
}

function post(port: number, body: object, path = '/v1/completions'): ClientRequest {
  const call = request({ port, path, method: 'POST', headers: { 'content-type': 'application/json' }, agent: false })
  call.on('error', () => {})
  call.end(JSON.stringify(body))
  return call
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 2))
}

test('a client that leaves a stream ends its sequences in the engine', async () => {
  await withSocket({}, async ({ engine, log }, port) => {
    const call = post(port, { prompt: 'x', max_tokens: 400, n: 2, stream: true })
    const [response] = (await once(call, 'response')) as [IncomingMessage]
    await once(response, 'data')
    assert.equal(engine.numRunning, 2)
    engine.pause()
    call.destroy()
    await until(() => engine.numRunning === 0)
    assert.equal(engine.aborted.length, 2)
    await until(() => log.some((line) => line.msg === 'request'))
    assert.equal(log.find((line) => line.msg === 'request')!['finishReason'], 'abort')
  })
})

test('so does one that leaves before the first token, streamed or not', async () => {
  for (const stream of [true, false]) {
    await withSocket({}, async ({ engine }, port) => {
      engine.pause()
      const call = post(port, { prompt: 'x', max_tokens: 400, stream })
      await until(() => engine.numRunning === 1)
      call.destroy()
      await until(() => engine.numRunning === 0)
    })
  }
})

test('a client that leaves while its adapter loads starts nothing', async () => {
  let release = () => {}
  const onLoad = () =>
    new Promise<void>((resolve) => {
      release = resolve
    })
  await withSocket(
    { adapters: { adapterDir: new URL('../../demo/adapters', import.meta.url).pathname }, onLoad },
    async ({ engine, server }, port) => {
      const closed = new Promise((resolve) => server.app.server.once('connection', (socket) => socket.once('close', resolve)))
      const call = post(port, { model: 'pirate', prompt: 'x', max_tokens: 4 })
      await until(() => engine.loads.length === 1)
      call.destroy()
      await closed
      release()
      await until(() => engine.findAdapter('pirate') !== null)
      await new Promise(setImmediate)
      assert.equal(engine.submitted.length, 0)
    },
  )
})

test('a reader that lags gets fewer, larger events and loses nothing', async () => {
  const numTokens = 4000
  const script = () => Array.from({ length: numTokens }, (_, i) => 265 + (i % 100))
  // Some 15 MB: more than the socket buffers of both ends take.
  await withSocket({ script, maxModelLen: 8192, server: { maxLogprobs: -1 } }, async ({ engine }, port) => {
    const body = { prompt: 'x', max_tokens: numTokens, stream: true, logprobs: 150, return_token_ids: true }
    const call = post(port, body)
    const [response] = (await once(call, 'response')) as [IncomingMessage]
    response.pause()
    await until(() => engine.numRunning === 0)
    response.setEncoding('utf8')
    let text = ''
    response.on('data', (chunk: string) => {
      text += chunk
    })
    response.resume()
    await once(response, 'end')
    const { events, isDone } = parseEvents(text)
    assert.ok(isDone)
    assert.deepEqual(
      events.flatMap((event) => event.choices[0].token_ids),
      script(),
    )
    assert.ok(events.length < numTokens, `${events.length} events`)
    assert.equal(events.at(-1).choices[0].finish_reason, 'length')
  })
})

test('a LoRAX reader that lags gets an event for every token all the same', async () => {
  const numTokens = 3000
  const script = () => Array.from({ length: numTokens }, (_, i) => 265 + (i % 100))
  await withSocket({ script, maxModelLen: 8192, server: { maxLogprobs: -1 } }, async ({ engine }, port) => {
    const parameters = { max_new_tokens: numTokens, return_k_alternatives: 150, details: true }
    const call = post(port, { inputs: 'x', parameters }, '/generate_stream')
    const [response] = (await once(call, 'response')) as [IncomingMessage]
    response.pause()
    await until(() => engine.numRunning === 0)
    const text = Buffer.concat(await response.toArray()).toString()
    const { events } = parseEvents(text)
    assert.deepEqual(
      events.map((event) => event.token.id),
      script(),
    )
    assert.equal(events.at(-1).details.generated_tokens, numTokens)
    assert.equal(events.at(-1).generated_text, events.map((event) => event.token.text).join(''))
  })
})

test('a LoRAX client that leaves ends its sequence in the engine', async () => {
  for (const path of ['/generate', '/generate_stream']) {
    await withSocket({}, async ({ engine }, port) => {
      const call = post(port, { inputs: 'x', parameters: { max_new_tokens: 400 } }, path)
      await until(() => engine.numRunning === 1)
      engine.pause()
      call.destroy()
      await until(() => engine.numRunning === 0)
      assert.equal(engine.aborted.length, 1)
    })
  }
})

test('draining refuses new requests, lets running ones finish, and closes', async () => {
  await withSocket({ script: () => [300, 301, 302] }, async ({ engine, server, get, post: inject }, port) => {
    engine.pause()
    const call = post(port, { prompt: 'x', stream: true })
    await until(() => engine.numRunning === 1)
    const closed = server.close(10_000)
    assert.equal((await get('/health')).status, 503)
    assert.equal((await inject('/v1/completions', { prompt: 'x' })).status, 503)
    engine.resume()
    const [response] = (await once(call, 'response')) as [IncomingMessage]
    response.resume()
    await once(response, 'end')
    await closed
  })
})

test('draining aborts what is still running after its time', async () => {
  await withSocket({}, async ({ engine, server }, port) => {
    const call = post(port, { prompt: 'x', max_tokens: 400 })
    await until(() => engine.numRunning === 1)
    engine.pause()
    const answered = once(call, 'response') as Promise<[IncomingMessage]>
    await server.close(20)
    const [response] = await answered
    const chunks = await response.toArray()
    const body = JSON.parse(Buffer.concat(chunks).toString())
    assert.equal(body.choices[0].finish_reason, 'abort')
    assert.equal(engine.numRunning, 0)
  })
})

test('a body over the limit is answered on a real connection too', async () => {
  await withSocket({ server: { bodyLimitBytes: 1000 } }, async (_harness, port) => {
    const answer = await fetch(`http://127.0.0.1:${port}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ prompt: 'x'.repeat(100_000) }),
    })
    assert.equal(answer.status, 413)
    assert.equal(((await answer.json()) as { error: { code: number } }).error.code, 413)
  })
})

test('a client that is still sending megabytes too many reads the 413, not a broken pipe', async () => {
  await withSocket({ server: { bodyLimitBytes: 4_000_000 } }, async (_harness, port) => {
    const answer = await fetch(`http://127.0.0.1:${port}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: 'x'.repeat(12_000_000),
    })
    assert.equal(answer.status, 413)
  })
})

test('what is not HTTP gets an error of the usual shape', async () => {
  await withSocket({}, async (_harness, port) => {
    const socket = connect(port, '127.0.0.1')
    socket.end('garbage\r\n\r\n')
    const answer = Buffer.concat(await socket.toArray()).toString()
    assert.match(answer, /^HTTP\/1\.1 400 /)
    assert.equal(JSON.parse(answer.slice(answer.indexOf('\r\n\r\n') + 4)).error.code, 400)
  })
})
