// What the engine itself costs a step: everything but the forward pass and the sampling of its logits, at full house on the
// null backend, the step's message to another thread included. Goal: under 1 ms at 256 running requests.
//
//   node --import tsx bench/scheduler-step.ts [--requests 256] [--adapters 16] [--steps 2000] [--out FILE]

import { parseArgs } from 'node:util'
import { MessageChannel } from 'node:worker_threads'
import { AdapterStore } from '../src/adapter/adapter-store.ts'
import { createNullBackend } from '../src/backend/null/null-backend.ts'
import { requestId } from '../src/core/ids.ts'
import { at } from '../src/core/invariant.ts'
import { Engine } from '../src/engine/engine.ts'
import type { EngineCommand, EngineEvent } from '../src/engine/messages.ts'
import { greedy } from './greedy-sampling.ts'
import { type Summary, summarize } from './metrics/statistics.ts'
import { describeEnvironment, writeResult } from './result-file.ts'

const VOCAB_SIZE = 32_000
const BLOCK_SIZE = 16
const PROMPT_TOKENS = 128
const WARMUP_STEPS = 300
const GOAL_MS = 1

// A seed given: the engine draws none.
const SAMPLING = { ...greedy(1), seed: 0 }

const { values: flags } = parseArgs({
  options: {
    requests: { type: 'string', default: '256' },
    adapters: { type: 'string', default: '16' },
    steps: { type: 'string', default: '2000' },
    out: { type: 'string' },
  },
})
const numRequests = Number(flags.requests)
const numAdapters = Number(flags.adapters)
const numSteps = Number(flags.steps)

const environment = describeEnvironment()
const maxModelLen = PROMPT_TOKENS + WARMUP_STEPS + numSteps + numRequests
const backend = createNullBackend({
  vocabSize: VOCAB_SIZE,
  blockSize: BLOCK_SIZE,
  numBlocks: numRequests * Math.ceil(maxModelLen / BLOCK_SIZE) * 2,
  adapterBytes: numAdapters,
  stepDelayMs: 0,
})
const adapters = new AdapterStore({
  device: backend,
  loader: {
    load: async ({ name }, id) => ({
      id,
      name,
      kind: 'LORA',
      digest: name,
      kvDigest: name,
      maxRank: 8,
      numBytes: 1,
      sites: new Map(),
      virtualTokens: null,
      promptCoupling: 'none',
      invocationTokenIds: null,
    }),
  },
  hostBytes: numAdapters,
  clock: Date.now,
})
const commands: EngineCommand[] = []
// The message is cloned into a port, as it is on its way to the server's thread.
const { port1, port2 } = new MessageChannel()
port2.on('message', () => {})
const events: Extract<EngineEvent, { type: 'step' }>[] = []
const engine = new Engine({
  backend,
  adapters,
  maxNumSeqs: numRequests,
  maxNumBatchedTokens: Math.max(2048, numRequests),
  maxModelLen,
  enablePrefixCaching: true,
  receive: () => commands.shift() ?? null,
  send: (event) => {
    port1.postMessage(event)
    if (event.type === 'step') events.push(event)
  },
  clock: () => performance.now(),
  drawSeed: () => 0,
})

const infos = []
for (let i = 0; i < numAdapters; i++) infos.push(await adapters.register({ name: `a${i}`, path: `/a${i}` }, false))
for (let i = 0; i < numRequests; i++) {
  const promptTokenIds = Int32Array.from({ length: PROMPT_TOKENS }, (_, p) => (i * 31 + p * 7) % VOCAB_SIZE)
  // Every other request runs on an adapter, the rest on the base.
  const adapterId = i % 2 === 0 && numAdapters > 0 ? at(infos, (i / 2) % numAdapters).id : null
  const sampling = { ...SAMPLING, maxTokens: maxModelLen - PROMPT_TOKENS }
  const request = {
    requestId: requestId(`r${i}`),
    promptTokenIds,
    adapterId,
    sampling,
    priority: 0,
    cacheSalt: '',
    arrivedAtMs: 0,
  }
  commands.push({ type: 'add-request', request })
}

const ownMs: number[] = []
for (let i = 0; i < WARMUP_STEPS + numSteps; i++) {
  const startMs = performance.now()
  await engine.step()
  const { timing } = at(events, events.length - 1)
  const stepMs = performance.now() - startMs
  if (i >= WARMUP_STEPS && timing.numSeqs === numRequests) ownMs.push(stepMs - timing.executeMs - timing.sampleMs)
  // The port's other end gets its turn outside the measured span.
  if (i % 50 === 0) await new Promise((resolve) => setImmediate(resolve))
}
engine.checkIntegrity()
port1.close()

const timings = events.slice(-ownMs.length).map((event) => event.timing)
const summaryOf = (samples: readonly number[]): Summary => summarize(Float64Array.from(samples), [50, 99])
const result = {
  bench: 'scheduler-step',
  environment,
  setup: { numRequests, numAdapters, numSteps, promptTokens: PROMPT_TOKENS, blockSize: BLOCK_SIZE },
  goalMs: GOAL_MS,
  ownMs: summaryOf(ownMs),
  scheduleMs: summaryOf(timings.map((timing) => timing.scheduleMs)),
  updateMs: summaryOf(timings.map((timing) => timing.updateMs)),
  sampleMs: summaryOf(timings.map((timing) => timing.sampleMs)),
}
console.log(JSON.stringify(result, null, 1))
if (flags.out !== undefined) writeResult(flags.out, result)
