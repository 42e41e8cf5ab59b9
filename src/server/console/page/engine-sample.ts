// One look at the engine, out of /metrics. Families that the server does not have leave nulls: the page shows a dash for them.

import { parseMetrics, type Series } from './metrics-text.ts'

export interface EngineSample {
  /** Milliseconds of the page's clock. */
  readonly atMs: number
  readonly numRunning: number | null
  readonly numWaiting: number | null
  readonly kvUsage: number | null
  readonly kvTokens: number | null
  readonly numPromptTokens: number | null
  readonly numGenerationTokens: number | null
  readonly numPrefixQueryTokens: number | null
  readonly numPrefixHitTokens: number | null
  readonly ttftSumS: number | null
  readonly ttftCount: number | null
  readonly deviceBytes: number | null
  readonly deviceLimitBytes: number | null
  readonly hostBytes: number | null
  readonly hostLimitBytes: number | null
  /** Wherever their weights are. */
  readonly numAdapters: number | null
  readonly numOnDevice: number | null
  readonly runningAdapters: ReadonlySet<string>
  readonly waitingAdapters: ReadonlySet<string>
  /** Prompt and output tokens of finished requests by adapter. */
  readonly adapterTokens: ReadonlyMap<string, number>
}

/** The label value of requests without an adapter. */
export const BASE_LABEL = '_base'
/** The label value that adapters beyond the server's limit of series share. */
export const OTHER_LABEL = '_other'

const RUNNING = 'vllm:num_requests_running'
const WAITING = 'vllm:num_requests_waiting'
const KV_USAGE = 'vllm:kv_cache_usage_perc'
const CACHE_INFO = 'vllm:cache_config_info'
const PROMPT_TOKENS = 'vllm:prompt_tokens_total'
const GENERATION_TOKENS = 'vllm:generation_tokens_total'
const PREFIX_QUERIES = 'vllm:prefix_cache_queries_total'
const PREFIX_HITS = 'vllm:prefix_cache_hits_total'
const TTFT_SUM = 'vllm:time_to_first_token_seconds_sum'
const TTFT_COUNT = 'vllm:time_to_first_token_seconds_count'
const LORA_INFO = 'vllm:lora_requests_info'
const ADAPTER_MEMORY = 'lorikeet_adapter_memory_bytes'
const ADAPTER_LIMIT = 'lorikeet_adapter_memory_limit_bytes'
const ADAPTER_STATE = 'lorikeet_adapter_state'
const ADAPTER_TOKENS = 'lorikeet_adapter_tokens_total'

const NAMES: ReadonlySet<string> = new Set([
  RUNNING,
  WAITING,
  KV_USAGE,
  CACHE_INFO,
  PROMPT_TOKENS,
  GENERATION_TOKENS,
  PREFIX_QUERIES,
  PREFIX_HITS,
  TTFT_SUM,
  TTFT_COUNT,
  LORA_INFO,
  ADAPTER_MEMORY,
  ADAPTER_LIMIT,
  ADAPTER_STATE,
  ADAPTER_TOKENS,
])

export function readEngineSample(metricsText: string, atMs: number): EngineSample {
  const families = parseMetrics(metricsText, NAMES)
  const series = (name: string): readonly Series[] => families.get(name) ?? []
  const value = (name: string, label?: string, wanted?: string): number | null =>
    series(name).find(({ labels }) => label === undefined || labels[label] === wanted)?.value ?? null
  const loraInfo = series(LORA_INFO)[0]?.labels ?? {}
  return {
    atMs,
    numRunning: value(RUNNING),
    numWaiting: value(WAITING),
    kvUsage: value(KV_USAGE),
    kvTokens: numberOrNull(series(CACHE_INFO)[0]?.labels['kv_cache_size_tokens']),
    numPromptTokens: value(PROMPT_TOKENS),
    numGenerationTokens: value(GENERATION_TOKENS),
    numPrefixQueryTokens: value(PREFIX_QUERIES),
    numPrefixHitTokens: value(PREFIX_HITS),
    ttftSumS: value(TTFT_SUM),
    ttftCount: value(TTFT_COUNT),
    deviceBytes: value(ADAPTER_MEMORY, 'tier', 'device'),
    deviceLimitBytes: value(ADAPTER_LIMIT, 'tier', 'device'),
    hostBytes: value(ADAPTER_MEMORY, 'tier', 'host'),
    hostLimitBytes: value(ADAPTER_LIMIT, 'tier', 'host'),
    numAdapters: countAdapters(series(ADAPTER_STATE)),
    numOnDevice: value(ADAPTER_STATE, 'state', 'device'),
    runningAdapters: names(loraInfo['running_lora_adapters']),
    waitingAdapters: names(loraInfo['waiting_lora_adapters']),
    adapterTokens: tokensByAdapter(series(ADAPTER_TOKENS)),
  }
}

function numberOrNull(text: string | undefined): number | null {
  const value = Number(text ?? Number.NaN)
  return Number.isNaN(value) ? null : value
}

/** Each adapter is in one state; those that failed to load are none. */
function countAdapters(states: readonly Series[]): number | null {
  const counts = states.filter(({ labels }) => labels['state'] !== 'failed').map(({ value }) => value)
  return counts.length === 0 ? null : counts.reduce((sum, count) => sum + count)
}

/** Names hold no commas: the server refuses them. */
function names(list: string | undefined): ReadonlySet<string> {
  return new Set((list ?? '').split(',').filter((name) => name !== ''))
}

function tokensByAdapter(series: readonly Series[]): ReadonlyMap<string, number> {
  const tokens = new Map<string, number>()
  for (const { labels, value } of series) {
    const adapter = labels['adapter']
    if (adapter !== undefined) tokens.set(adapter, (tokens.get(adapter) ?? 0) + value)
  }
  return tokens
}
