// The numbers of one run, by vLLM's definitions and under vLLM's keys. Latencies are over successful requests only.
import type { RequestRecord } from './request-record.ts'
import { Samples, type Summary, summarize } from './statistics.ts'

/** Limits of a service-level objective; a request is good when it meets all that are given. */
export interface Slo {
  readonly ttftMs: number | null
  readonly tpotMs: number | null
  readonly e2elMs: number | null
}

export const NO_SLO: Slo = { ttftMs: null, tpotMs: null, e2elMs: null }

export type LatencyName = 'ttft' | 'tpot' | 'itl' | 'e2el'

export const LATENCY_NAMES: readonly LatencyName[] = ['ttft', 'tpot', 'itl', 'e2el']

/** Everything in milliseconds. */
export type LatencySummaries = Readonly<Record<LatencyName, Summary>>

export interface OutcomeCounts {
  readonly completed: number
  readonly failed: number
  readonly rejected: number
  readonly aborted: number
}

export function countOutcomes(records: readonly RequestRecord[]): OutcomeCounts {
  const count = (outcome: RequestRecord['outcome']): number => records.filter((record) => record.outcome === outcome).length
  return { completed: count('success'), failed: count('failed'), rejected: count('rejected'), aborted: count('aborted') }
}

/** (E2EL - TTFT) / (tokens - 1), seconds; null for answers of one token, which have none. */
export function tpotOf(record: RequestRecord): number | null {
  if (record.outputLen <= 1 || record.ttftS === null) return null
  return (record.e2elS - record.ttftS) / (record.outputLen - 1)
}

export function latencies(records: readonly RequestRecord[], percents: readonly number[]): LatencySummaries {
  const samples: Record<LatencyName, Samples> = {
    ttft: new Samples(),
    tpot: new Samples(),
    itl: new Samples(),
    e2el: new Samples(),
  }
  for (const record of records) {
    if (record.outcome !== 'success') continue
    if (record.ttftS !== null) samples.ttft.push(record.ttftS * 1000)
    const tpot = tpotOf(record)
    if (tpot !== null) samples.tpot.push(tpot * 1000)
    for (const gap of record.itlsS) samples.itl.push(gap * 1000)
    samples.e2el.push(record.e2elS * 1000)
  }
  return {
    ttft: summarize(samples.ttft.values(), percents),
    tpot: summarize(samples.tpot.values(), percents),
    itl: summarize(samples.itl.values(), percents),
    e2el: summarize(samples.e2el.values(), percents),
  }
}

/** Whether a request was answered within the limits; a missing TPOT counts as 0, as in vLLM. */
export function meetsSlo(record: RequestRecord, slo: Slo): boolean {
  if (record.outcome !== 'success' || record.ttftS === null) return false
  if (slo.ttftMs !== null && record.ttftS * 1000 > slo.ttftMs) return false
  if (slo.tpotMs !== null && (tpotOf(record) ?? 0) * 1000 > slo.tpotMs) return false
  return slo.e2elMs === null || record.e2elS * 1000 <= slo.e2elMs
}

export function hasSlo(slo: Slo): boolean {
  return slo.ttftMs !== null || slo.tpotMs !== null || slo.e2elMs !== null
}

/** S-LoRA's first-token limit, seconds (arXiv 2311.03285, section 7). */
export const SLORA_FIRST_TOKEN_S = 6

export interface Attainment {
  /** Share of all requests sent, failures included, that met the user's limits; null without limits. */
  readonly slo: number | null
  /** Share with a first token within six seconds. */
  readonly slora: number
  /** Mean of 1 - (t/6)² where t is within six seconds, else 0. */
  readonly sloraSatisfaction: number
}

export function attainment(records: readonly RequestRecord[], slo: Slo): Attainment {
  const total = Math.max(records.length, 1)
  let met = 0
  let early = 0
  let satisfaction = 0
  for (const record of records) {
    if (meetsSlo(record, slo)) met += 1
    if (record.outcome !== 'success' || record.ttftS === null || record.ttftS >= SLORA_FIRST_TOKEN_S) continue
    early += 1
    satisfaction += 1 - (record.ttftS / SLORA_FIRST_TOKEN_S) ** 2
  }
  return { slo: hasSlo(slo) ? met / total : null, slora: early / total, sloraSatisfaction: satisfaction / total }
}

export interface Peaks {
  /** Most messages in one second of the run. */
  readonly maxOutputTokensPerS: number
  /** Most requests that overlap one second of the run. */
  readonly maxConcurrentRequests: number
}

/** vLLM's peaks: one-second buckets from the first send, over successful requests. */
export function peaks(records: readonly RequestRecord[]): Peaks {
  const successes = records.filter((record) => record.outcome === 'success')
  const firstS = successes.reduce((first, record) => Math.min(first, record.startS), Number.POSITIVE_INFINITY)
  const tokens = new Map<number, number>()
  const running = new Map<number, number>()
  const add = (buckets: Map<number, number>, second: number): void => {
    buckets.set(second, (buckets.get(second) ?? 0) + 1)
  }
  for (const record of successes) {
    const startS = record.startS - firstS
    let timeS = startS + (record.ttftS ?? 0)
    add(tokens, Math.floor(timeS))
    for (const gap of record.itlsS) {
      timeS += gap
      add(tokens, Math.floor(timeS))
    }
    for (let second = Math.floor(startS); second <= Math.floor(startS + record.e2elS); second += 1) add(running, second)
  }
  const highest = (buckets: Map<number, number>): number =>
    [...buckets.values()].reduce((max, count) => Math.max(max, count), 0)
  return { maxOutputTokensPerS: highest(tokens), maxConcurrentRequests: highest(running) }
}

export interface Throughput {
  readonly durationS: number
  readonly totalInputTokens: number
  readonly totalOutputTokens: number
  readonly requestsPerS: number
  /** Requests within the limits, per second; null without limits. */
  readonly goodputPerS: number | null
  readonly outputTokensPerS: number
  readonly totalTokensPerS: number
  /** Sum of latencies over the duration: the mean number of requests in flight. */
  readonly meanConcurrency: number
}

/** @param durationS of the whole run, as vLLM divides */
export function throughput(records: readonly RequestRecord[], durationS: number, slo: Slo): Throughput {
  let completed = 0
  let input = 0
  let output = 0
  let good = 0
  let busyS = 0
  for (const record of records) {
    if (record.outcome !== 'success') continue
    completed += 1
    input += record.inputLen
    output += record.outputLen
    busyS += record.e2elS
    if (meetsSlo(record, slo)) good += 1
  }
  const perS = (count: number): number => (durationS > 0 ? count / durationS : 0)
  return {
    durationS,
    totalInputTokens: input,
    totalOutputTokens: output,
    requestsPerS: perS(completed),
    goodputPerS: hasSlo(slo) ? perS(good) : null,
    outputTokensPerS: perS(output),
    totalTokensPerS: perS(input + output),
    meanConcurrency: perS(busyS),
  }
}
