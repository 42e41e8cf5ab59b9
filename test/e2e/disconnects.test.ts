// Clients that leave at random points give everything back.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type IncomingMessage, request } from 'node:http'
import { after, before, test } from 'node:test'
import { DEMO_ADAPTERS, DEMO_MODEL, ServerProcess } from '../support/server-process.ts'

const NUM_CLIENTS = 200
const MODELS = [null, 'pirate', 'robot', 'space']
let server: ServerProcess

before(async () => {
  server = await ServerProcess.start([
    ...['--model', DEMO_MODEL, '--backend', 'null', '--adapter-dir', DEMO_ADAPTERS],
    // Few places, so that most clients leave while they wait.
    ...['--max-num-seqs', '16'],
  ])
})
after(() => server.stop())

async function gauge(name: string): Promise<number> {
  const text = await (await fetch(`${server.url}/metrics`)).text()
  const line = text.split('\n').find((one) => one.startsWith(`${name}{`))
  assert.ok(line, name)
  return Number(line.slice(line.lastIndexOf(' ') + 1))
}

/** Leaves at once, after some milliseconds, or after some events. */
async function leave(index: number): Promise<void> {
  const call = request(`${server.url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    agent: false,
  })
  call.on('error', () => {})
  const prompt = Array.from({ length: 1 + ((index * 37) % 300) }, (_, i) => 3 + ((i * 7 + index) % 500))
  call.end(JSON.stringify({ model: MODELS[index % 4], prompt, max_tokens: 200, stream: index % 5 !== 0, ignore_eos: true }))
  if (index % 3 === 0) {
    await new Promise((resolve) => setTimeout(resolve, (index * 13) % 150))
  } else {
    const [response] = (await Promise.race([once(call, 'response'), once(call, 'close')])) as [IncomingMessage | undefined]
    for (let i = 0; i < index % 7 && response !== undefined && !response.readableEnded; i++) {
      await Promise.race([once(response, 'data'), once(response, 'end')])
    }
  }
  call.destroy()
}

test('200 streaming clients that leave at random points leave nothing behind', async () => {
  await Promise.all(Array.from({ length: NUM_CLIENTS }, (_, index) => leave(index)))
  for (const name of ['vllm:num_requests_running', 'vllm:num_requests_waiting', 'vllm:kv_cache_usage_perc']) {
    while ((await gauge(name)) > 0) await new Promise((resolve) => setTimeout(resolve, 20))
  }
  const { server_load: load } = (await (await fetch(`${server.url}/load`)).json()) as { server_load: number }
  assert.equal(load, 0)
  const fresh = await fetch(`${server.url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'pirate', prompt: [5, 6, 7], max_tokens: 8, ignore_eos: true }),
  })
  assert.equal(fresh.status, 200)
  assert.equal(((await fresh.json()) as { usage: { completion_tokens: number } }).usage.completion_tokens, 8)
  const reasons = server.logs.filter((line) => line.msg === 'request').map((line) => line['finishReason'])
  assert.ok(reasons.includes('abort'))
  assert.ok(!reasons.includes('error'))
})
