// No load and no failure of one delays a step of others: an order of events, proved with a loader that never yields.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { it } from 'node:test'
import { Worker } from 'node:worker_threads'
import { AdapterStore } from '../../src/adapter/adapter-store.ts'
import { LoaderClient } from '../../src/adapter/loader-client.ts'
import { createNullBackend } from '../../src/backend/null/null-backend.ts'
import { Engine } from '../../src/engine/engine.ts'
import { EngineLoop } from '../../src/engine/engine-loop.ts'
import type { EngineEvent } from '../../src/engine/messages.ts'
import { newRequest } from '../support/engine-harness.ts'

const NUM_TOKENS = 200

it('a request runs from first to last token while the loader is stuck, and after the load has failed', async () => {
  const gate = new Int32Array(new SharedArrayBuffer(8)) // [is open, is stuck]
  const loader = new LoaderClient({
    start: () => new Worker(join(import.meta.dirname, '../support/stuck-loader.mjs'), { workerData: { gate: gate.buffer } }),
  })
  const backend = createNullBackend({ vocabSize: 997, blockSize: 4, numBlocks: 64, adapterBytes: 1000, stepDelayMs: 0 })
  const loop = new EngineLoop()
  const heard: string[] = []
  let hear = (): void => {}
  const until = async (event: string): Promise<void> => {
    while (!heard.includes(event)) {
      await new Promise<void>((resolve) => {
        hear = resolve
      })
    }
  }
  const send = (event: EngineEvent): void => {
    if (event.type === 'failed-call') heard.push(`load: ${event.error.code}`)
    if (event.type === 'step') {
      for (const { requestId, finish } of event.outputs) if (finish !== null) heard.push(`${requestId}: ${finish.reason}`)
    }
    hear()
  }
  const adapters = new AdapterStore({ device: backend, loader, hostBytes: 1000, clock: () => 0, onChange: () => loop.wake() })
  const engine = new Engine({
    backend,
    adapters,
    maxNumSeqs: 4,
    maxNumBatchedTokens: 16,
    maxModelLen: 256,
    enablePrefixCaching: true,
    receive: () => loop.receive(),
    send,
    clock: () => performance.now(),
    drawSeed: () => 1,
  })
  const running = loop.run(engine)
  const request = (id: string) => newRequest({ id, prompt: [1, 2, 3], sampling: { maxTokens: NUM_TOKENS, ignoreEos: true } })

  loop.push({ type: 'load-adapter', callId: 1, adapter: { name: 'stuck', path: '/anywhere' }, replace: false })
  while (Atomics.load(gate, 1) === 0) await new Promise((resolve) => setTimeout(resolve, 5))
  loop.push({ type: 'add-request', request: request('beside') })
  await until('beside: length')
  assert.deepEqual(heard, ['beside: length'])

  loop.push({ type: 'add-request', request: request('after') })
  Atomics.store(gate, 0, 1)
  Atomics.notify(gate, 0)
  await until('load: ADAPTER_REFUSED')
  await until('after: length')
  assert.equal(engine.stats().numUsedBlocks, 0)

  loop.push({ type: 'shutdown' })
  await running
  adapters.dispose()
  await loader.dispose()
})
