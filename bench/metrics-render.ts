// What one scrape costs with a thousand adapters: the text and its bytes, all of it in one turn of the event loop, so that its time
// is also the longest stall. Beside it prom-client alone on as many series. Goal: under 3 ms.
//
//   node --import tsx bench/metrics-render.ts [--adapters 1000] [--tracked 128] [--scrapes 300] [--out FILE]

import { parseArgs } from 'node:util'
import { Counter, Histogram, Registry } from 'prom-client'
import { ADAPTER_E2E_BOUNDS_S, ADAPTER_TTFT_BOUNDS_S } from '../src/metrics/buckets.ts'
import type { ListedAdapter, SequenceTimes } from '../src/metrics/records.ts'
import { ServerMetrics } from '../src/metrics/server-metrics.ts'
import { type Summary, summarize } from './metrics/statistics.ts'
import { describeEnvironment, writeResult } from './result-file.ts'

const GOAL_MS = 3
/** Requests that end between two scrapes: few for a picker every 50 ms, every adapter for Prometheus every 15 s. */
const NUM_CHANGED = [0, 16, 1000]
/** The text is cached for a few milliseconds. */
const PAUSE_MS = 12
const WARMUP_SCRAPES = 50

const { values: flags } = parseArgs({
  options: {
    adapters: { type: 'string', default: '1000' },
    tracked: { type: 'string', default: '128' },
    scrapes: { type: 'string', default: '300' },
    out: { type: 'string' },
  },
})
const numAdapters = Number(flags.adapters)
const maxTracked = Number(flags.tracked)
const numScrapes = Number(flags.scrapes)

const environment = describeEnvironment()
const names = Array.from({ length: numAdapters }, (_, i) => `team-${i % 40}/adapter-${i}`)
const listed = new Set(names)
const list: readonly ListedAdapter[] = names.map((name, i) => ({
  name,
  state: i % 4 === 0 ? 'active' : 'loaded',
  hostBytes: 1 << 20,
  deviceBytes: i % 4 === 0 ? 1 << 20 : 0,
  isLoading: false,
}))

const metrics = new ServerMetrics({
  model: {
    modelName: 'base',
    modelType: 'llama',
    backend: 'null',
    dtype: 'float32',
    maxModelLen: 131_072,
    blockSize: 16,
    numBlocks: 8192,
    isPrefixCachingEnabled: true,
  },
  build: { version: '0.0.0', revision: '' },
  maxAdapters: 256,
  adapterLimits: { host: 2 ** 31, device: 2 ** 31 },
  maxTrackedAdapters: maxTracked,
  hasLegacyNames: true,
  loraInfo: 'running',
  snapshot: () => ({
    numRunning: 256,
    numWaiting: 64,
    numWaitingForAdapter: 16,
    numBlocks: 8192,
    numUsedBlocks: 4096,
    numPreemptions: 1,
    numPrefixQueryTokens: 1000,
    numPrefixHitTokens: 500,
    numPromptTokens: 1000,
    numCachedPromptTokens: 500,
    numGenerationTokens: 1000,
    runningAdapters: names.slice(0, 200),
    waitingAdapters: names.slice(100, 164),
    numWaitingByAdapter: Array.from({ length: 64 }, () => 1),
  }),
  adapters: { list: () => list, isListed: (name) => listed.has(name), numLoading: () => 0 },
})

const times: SequenceTimes = {
  arrivedAtMs: 0,
  firstScheduledAtMs: 3.25,
  firstTokenAtMs: 41.5,
  lastTokenAtMs: 900.125,
  finishedAtMs: 900.125,
  adapterWaitMs: 1,
  numPromptTokens: 128,
  numOutputTokens: 100,
  numCachedTokens: 64,
}

function finishRequests(count: number): void {
  for (const adapter of names.slice(0, count)) {
    metrics.observePrompt({ adapter, sequences: [{ reason: 'length', times, maxTokens: 100 }] })
  }
}

interface Cost {
  readonly wallMs: Summary
  /** Mean; all threads, garbage collection among them. Other processes on the machine do not raise it. */
  readonly cpuMs: number
}

async function measure(render: () => Promise<string>, change: () => void): Promise<Cost> {
  const samples: number[] = []
  let cpuUs = 0
  for (let i = 0; i < WARMUP_SCRAPES + numScrapes; i++) {
    change()
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS))
    const startMs = performance.now()
    const cpuBefore = process.cpuUsage()
    Buffer.from(await render())
    if (i < WARMUP_SCRAPES) continue
    const { user, system } = process.cpuUsage(cpuBefore)
    cpuUs += user + system
    samples.push(performance.now() - startMs)
  }
  return { wallMs: summarize(Float64Array.from(samples), [5, 50, 99]), cpuMs: cpuUs / 1000 / numScrapes }
}

/** The per-adapter counters and histograms alone, as prom-client keeps them. */
function promClientAlone(): Registry {
  const registry = new Registry()
  const counter = (name: string, label: string, values: readonly string[]) => {
    const one = new Counter({ name, help: name, labelNames: ['adapter', label], registers: [registry] })
    for (const adapter of names) for (const value of values) one.inc({ adapter, [label]: value })
  }
  counter('requests_total', 'outcome', ['success', 'abort', 'error'])
  counter('tokens_total', 'kind', ['prompt', 'generation'])
  for (const [name, bounds] of [
    ['ttft_seconds', ADAPTER_TTFT_BOUNDS_S] as const,
    ['e2e_seconds', ADAPTER_E2E_BOUNDS_S] as const,
  ]) {
    const one = new Histogram({ name, help: name, labelNames: ['adapter'], buckets: [...bounds], registers: [registry] })
    for (const adapter of names) one.observe({ adapter }, 0.3)
  }
  return registry
}

finishRequests(numAdapters)
const text = await metrics.text()
const byChanged: Record<string, Cost> = {}
for (const count of NUM_CHANGED)
  byChanged[count] = await measure(
    () => metrics.text(),
    () => finishRequests(count),
  )
const registry = promClientAlone()
const result = {
  bench: 'metrics-render',
  environment,
  setup: { numAdapters, maxTracked, numScrapes },
  goalMs: GOAL_MS,
  numLines: text.split('\n').length,
  numBytes: Buffer.byteLength(text),
  renderByRequestsBetween: byChanged,
  promClientAlone: await measure(
    () => registry.metrics(),
    () => {},
  ),
}
console.log(JSON.stringify(result, null, 1))
if (flags.out !== undefined) writeResult(flags.out, result)
