// The result file: vLLM's benchmark keys at the top, everything that vLLM has no key for under `lorikeet`.
import type { Ending, LoadResult } from '../client/run-load.ts'
import { type AdapterSummary, byAdapter, type ColdWarm, coldWarm } from './adapter-summary.ts'
import type { RequestRecord } from './request-record.ts'
import {
  type Attainment,
  attainment,
  countOutcomes,
  LATENCY_NAMES,
  type LatencyName,
  latencies,
  type OutcomeCounts,
  peaks,
  type Slo,
  throughput,
} from './serve-summary.ts'
import { type Summary, summarize } from './statistics.ts'
import { cdf, type QueueSample, type Timeline, timeline } from './timeline.ts'

/** What is known before the run and belongs in its result. */
export interface RunFacts {
  readonly label: string | null
  readonly endpointType: 'openai' | 'openai-chat'
  readonly modelId: string
  readonly numPrompts: number
  readonly metadata: Readonly<Record<string, string>>
  /** null for a closed loop, which has no rate. */
  readonly requestRate: number | null
  readonly burstiness: number
  readonly maxConcurrency: number | null
  readonly ramp: { readonly strategy: string; readonly startRps: number; readonly endRps: number } | null
  readonly slo: Slo
  readonly percents: readonly number[]
  readonly residentAdapters: number | null
  readonly warmedUp: readonly string[]
  /** Seeds, laws, server, client machine ... as they are to appear under `lorikeet`. */
  readonly setup: Readonly<Record<string, unknown>>
  readonly savesDetails: boolean
}

export interface LorikeetPart extends OutcomeCounts {
  readonly ending: Ending
  readonly not_sent: number
  /** Percentiles are over successful requests only. */
  readonly latencies_over: 'successful requests'
  readonly errors: readonly { readonly message: string; readonly status: number; readonly count: number }[]
  readonly attainment: Attainment
  readonly slo: Slo
  /** SGLang's TTFT: first message with text, ms. */
  readonly first_text_ms: Summary
  readonly cold_warm: ColdWarm
  readonly by_adapter: readonly AdapterSummary[]
  readonly mean_concurrency: number
  readonly clipped_requests: number
  readonly cached_prompt_tokens: number | null
  readonly output_lengths_counted_by: 'usage' | 'messages' | 'mixed'
  readonly client: {
    /** Actual minus wanted send time, ms. */
    readonly schedule_lag_ms: Summary
    readonly event_loop_delay_ms: LoadResult['eventLoopDelayMs']
  }
  readonly timeline: Timeline
  /** [ms, share] points of each latency. */
  readonly cdf: Readonly<Record<LatencyName, readonly (readonly [value: number, share: number])[]>>
  readonly setup: Readonly<Record<string, unknown>>
}

/** vLLM's keys are open-ended (one a percentile), so they are a record beside the typed part. */
export interface BenchResult extends Readonly<Record<string, unknown>> {
  readonly lorikeet: LorikeetPart
}

/** Points of a distribution kept in the result: a smooth curve on any screen. */
const CDF_POINTS = 200

export function buildResult(load: LoadResult, queue: readonly QueueSample[], facts: RunFacts, date: Date): BenchResult {
  const { records } = load
  const rates = throughput(records, load.durationS, facts.slo)
  const peak = peaks(records)
  const outcomes = countOutcomes(records)
  return {
    date: formatDate(date),
    endpoint_type: facts.endpointType,
    backend: facts.endpointType,
    label: facts.label,
    model_id: facts.modelId,
    tokenizer_id: facts.modelId,
    num_prompts: facts.numPrompts,
    ...facts.metadata,
    request_rate: facts.requestRate === Number.POSITIVE_INFINITY ? 'inf' : facts.requestRate,
    burstiness: facts.burstiness === Number.POSITIVE_INFINITY ? 'inf' : facts.burstiness,
    max_concurrency: facts.maxConcurrency,
    ...(facts.ramp === null
      ? {}
      : {
          ramp_up_strategy: facts.ramp.strategy,
          ramp_up_start_rps: facts.ramp.startRps,
          ramp_up_end_rps: facts.ramp.endRps,
        }),
    duration: rates.durationS,
    completed: outcomes.completed,
    failed: outcomes.failed + outcomes.rejected + outcomes.aborted,
    total_input_tokens: rates.totalInputTokens,
    total_output_tokens: rates.totalOutputTokens,
    request_throughput: rates.requestsPerS,
    request_goodput: rates.goodputPerS,
    output_throughput: rates.outputTokensPerS,
    total_token_throughput: rates.totalTokensPerS,
    max_output_tokens_per_s: peak.maxOutputTokensPerS,
    max_concurrent_requests: peak.maxConcurrentRequests,
    rtfx: 0,
    ...latencyKeys(records, facts.percents),
    ...(facts.savesDetails ? details(records) : {}),
    lorikeet: lorikeetPart(load, queue, facts, rates.meanConcurrency),
  }
}

function latencyKeys(records: readonly RequestRecord[], percents: readonly number[]): Record<string, number> {
  const keys: Record<string, number> = {}
  const summaries = latencies(records, percents)
  for (const name of LATENCY_NAMES) {
    const summary = summaries[name]
    keys[`mean_${name}_ms`] = summary.mean
    keys[`median_${name}_ms`] = summary.median
    keys[`std_${name}_ms`] = summary.std
    for (const percent of percents) keys[`p${percent}_${name}_ms`] = summary.percentiles[percent] ?? 0
  }
  return keys
}

/** vLLM's `--save-detailed` arrays, one entry a request in the order sent, failures with zeros as there. */
function details(records: readonly RequestRecord[]): Record<string, unknown> {
  return {
    input_lens: records.map((record) => record.inputLen),
    output_lens: records.map((record) => (record.outcome === 'success' ? record.outputLen : 0)),
    ttfts: records.map((record) => record.ttftS ?? 0),
    itls: records.map((record) => record.itlsS),
    start_times: records.map((record) => record.startS),
    generated_texts: records.map((record) => record.text ?? ''),
    errors: records.map((record) => record.error ?? ''),
    adapters: records.map((record) => record.adapter),
    scheduled_times: records.map((record) => record.scheduledS),
    schedule_lags: records.map((record) => record.dispatchedS - record.scheduledS),
  }
}

function lorikeetPart(load: LoadResult, queue: readonly QueueSample[], facts: RunFacts, meanConcurrency: number): LorikeetPart {
  const { records } = load
  const successes = records.filter((record) => record.outcome === 'success')
  const samples = (values: readonly (number | null)[]): Float64Array =>
    Float64Array.from(values.filter((value): value is number => value !== null))
  const ms = (value: number | null): number | null => (value === null ? null : value * 1000)
  const cached = successes.filter((record) => record.cachedTokens !== null)
  return {
    ending: load.ending,
    ...countOutcomes(records),
    not_sent: load.numNotSent,
    latencies_over: 'successful requests',
    errors: groupErrors(records),
    attainment: attainment(records, facts.slo),
    slo: facts.slo,
    first_text_ms: summarize(samples(successes.map((record) => ms(record.firstTextS))), facts.percents),
    cold_warm: coldWarm(records, facts.percents, facts.residentAdapters, facts.warmedUp),
    by_adapter: byAdapter(records, facts.percents, facts.slo),
    mean_concurrency: meanConcurrency,
    clipped_requests: load.numClipped,
    cached_prompt_tokens: cached.length === 0 ? null : cached.reduce((sum, record) => sum + (record.cachedTokens ?? 0), 0),
    output_lengths_counted_by: countedBy(successes),
    client: {
      schedule_lag_ms: summarize(samples(records.map((record) => ms(record.dispatchedS - record.scheduledS))), facts.percents),
      event_loop_delay_ms: load.eventLoopDelayMs,
    },
    timeline: timeline(records, load.durationS, queue),
    cdf: latencyCdfs(successes),
    setup: facts.setup,
  }
}

function latencyCdfs(successes: readonly RequestRecord[]): LorikeetPart['cdf'] {
  const curve = (values: readonly number[]) => cdf(Float64Array.from(values), CDF_POINTS)
  return {
    ttft: curve(successes.map((record) => (record.ttftS ?? 0) * 1000)),
    tpot: curve(
      successes
        .filter((record) => record.outputLen > 1)
        .map((record) => ((record.e2elS - (record.ttftS ?? 0)) * 1000) / (record.outputLen - 1)),
    ),
    itl: curve(successes.flatMap((record) => record.itlsS.map((gap) => gap * 1000))),
    e2el: curve(successes.map((record) => record.e2elS * 1000)),
  }
}

function countedBy(successes: readonly RequestRecord[]): LorikeetPart['output_lengths_counted_by'] {
  const sources = new Set(successes.map((record) => record.outputSource))
  return sources.size > 1 ? 'mixed' : sources.has('messages') ? 'messages' : 'usage'
}

/** Numbers in messages differ from request to request (ports, lengths); the group keeps one example. */
function groupErrors(records: readonly RequestRecord[]): LorikeetPart['errors'] {
  const groups = new Map<string, { message: string; status: number; count: number }>()
  for (const { error, httpStatus } of records) {
    if (error === null) continue
    const key = `${httpStatus} ${error.replace(/\d+/g, '#')}`
    const group = groups.get(key)
    if (group === undefined) groups.set(key, { message: error, status: httpStatus, count: 1 })
    else group.count += 1
  }
  return [...groups.values()].sort((a, b) => b.count - a.count)
}

/** vLLM's `%Y%m%d-%H%M%S`, local time. */
function formatDate(date: Date): string {
  const two = (value: number): string => String(value).padStart(2, '0')
  const day = `${date.getFullYear()}${two(date.getMonth() + 1)}${two(date.getDate())}`
  return `${day}-${two(date.getHours())}${two(date.getMinutes())}${two(date.getSeconds())}`
}
