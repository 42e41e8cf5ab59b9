// What the engine holds and has done, copied from its latest snapshot at each scrape.

import type { MetricsRegistry } from './metrics-registry.ts'
import type { EngineSnapshot } from './records.ts'
import { ThroughputWindow } from './throughput-window.ts'

export interface EngineFamiliesOptions {
  /** `model_name` and `engine`, which vLLM puts on all of these. */
  readonly labels: Readonly<Record<string, string>>
  readonly snapshot: () => EngineSnapshot
  /** Adds names that vLLM has given up and deployed dashboards still ask for. */
  readonly hasLegacyNames: boolean
}

type Read = (snapshot: EngineSnapshot) => number

const COUNTERS: readonly (readonly [name: string, help: string, read: Read])[] = [
  ['vllm:prompt_tokens_total', 'Prompt tokens processed.', (s) => s.numPromptTokens],
  ['vllm:prompt_tokens_cached_total', 'Prompt tokens taken from the prefix cache.', (s) => s.numCachedPromptTokens],
  ['vllm:generation_tokens_total', 'Tokens generated.', (s) => s.numGenerationTokens],
  ['vllm:num_preemptions_total', 'Requests put back into the queue for lack of KV blocks.', (s) => s.numPreemptions],
  ['vllm:prefix_cache_queries_total', 'Tokens looked up in the prefix cache.', (s) => s.numPrefixQueryTokens],
  ['vllm:prefix_cache_hits_total', 'Tokens found in the prefix cache.', (s) => s.numPrefixHitTokens],
]

const LEGACY_COUNTERS: typeof COUNTERS = [
  ['vllm:gpu_prefix_cache_queries_total', 'Old name of vllm:prefix_cache_queries_total.', (s) => s.numPrefixQueryTokens],
  ['vllm:gpu_prefix_cache_hits_total', 'Old name of vllm:prefix_cache_hits_total.', (s) => s.numPrefixHitTokens],
]

const GAUGES: typeof COUNTERS = [
  ['vllm:num_requests_running', 'Requests in the running batch.', (s) => s.numRunning],
  ['vllm:num_requests_waiting', 'Requests in the queue.', (s) => s.numWaiting],
  ['vllm:kv_cache_usage_perc', 'Share of the KV blocks that requests hold, 0 to 1.', kvUsage],
]

const LEGACY_GAUGES: typeof COUNTERS = [
  ['vllm:gpu_cache_usage_perc', 'Old name of vllm:kv_cache_usage_perc.', kvUsage],
  ['vllm:gpu_prefix_cache_hit_rate', 'Tokens found in the prefix cache by tokens looked up.', hitRate],
  ['vllm:num_requests_swapped', 'Always 0: nothing is swapped.', () => 0],
  ['vllm:cpu_cache_usage_perc', 'Always 0: no KV blocks in host memory.', () => 0],
]

/** Registers the families; there is nothing to tell them. */
export function registerEngineFamilies(registry: MetricsRegistry, options: EngineFamiliesOptions): void {
  const { labels, snapshot, hasLegacyNames } = options
  const names = Object.keys(labels)
  for (const [name, help, read] of hasLegacyNames ? [...GAUGES, ...LEGACY_GAUGES] : GAUGES) {
    registry.gauge(name, help, names, (set) => set(labels, read(snapshot())))
  }
  for (const [name, help, read] of hasLegacyNames ? [...COUNTERS, ...LEGACY_COUNTERS] : COUNTERS) {
    registry.counter(name, help, names, (set) => set(labels, read(snapshot())))
  }
  registry.gauge(
    'vllm:num_requests_waiting_by_reason',
    'Requests in the queue by what they lack: capacity, or deferred for their adapter.',
    [...names, 'reason'],
    (set) => {
      const { numWaiting, numWaitingForAdapter } = snapshot()
      set({ ...labels, reason: 'capacity' }, Math.max(0, numWaiting - numWaitingForAdapter))
      set({ ...labels, reason: 'deferred' }, Math.min(numWaiting, numWaitingForAdapter))
    },
  )
  const sourceNames = [...names, 'source']
  registry.counter(
    'vllm:prompt_tokens_by_source_total',
    'Prompt tokens by where their KV came from: local_compute, local_cache_hit; external_kv_transfer is always 0.',
    sourceNames,
    (set) => {
      const { numPromptTokens, numCachedPromptTokens } = snapshot()
      set({ ...labels, source: 'local_compute' }, numPromptTokens - numCachedPromptTokens)
      set({ ...labels, source: 'local_cache_hit' }, numCachedPromptTokens)
      set({ ...labels, source: 'external_kv_transfer' }, 0)
    },
  )
  if (hasLegacyNames) registerThroughput(registry, labels, snapshot)
}

function registerThroughput(
  registry: MetricsRegistry,
  labels: EngineFamiliesOptions['labels'],
  snapshot: () => EngineSnapshot,
): void {
  const rates: readonly (readonly [kind: string, read: Read])[] = [
    ['prompt', (s) => s.numPromptTokens],
    ['generation', (s) => s.numGenerationTokens],
  ]
  for (const [kind, read] of rates) {
    const window = new ThroughputWindow()
    const name = `vllm:avg_${kind}_throughput_toks_per_s`
    registry.gauge(name, `Recent ${kind} tokens a second.`, Object.keys(labels), (set) => {
      set(labels, window.rate(performance.now(), read(snapshot())))
    })
  }
}

function kvUsage({ numUsedBlocks, numBlocks }: EngineSnapshot): number {
  return numBlocks === 0 ? 0 : numUsedBlocks / numBlocks
}

function hitRate({ numPrefixHitTokens, numPrefixQueryTokens }: EngineSnapshot): number {
  return numPrefixQueryTokens === 0 ? 0 : numPrefixHitTokens / numPrefixQueryTokens
}
