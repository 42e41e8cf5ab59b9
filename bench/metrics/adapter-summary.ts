// The same numbers by adapter, and first use against later use: what a multi-adapter server is asked for.
import type { RequestRecord } from './request-record.ts'
import { attainment, countOutcomes, latencies, type OutcomeCounts, type Slo } from './serve-summary.ts'
import { type Summary, summarize } from './statistics.ts'

export interface AdapterSummary extends OutcomeCounts {
  /** null = the base model. */
  readonly adapter: string | null
  readonly numRequests: number
  readonly outputTokens: number
  /** ms. */
  readonly ttft: Summary
  readonly tpot: Summary
  readonly e2el: Summary
  readonly attainment: number | null
}

/** One summary an adapter, the most requested first. */
export function byAdapter(records: readonly RequestRecord[], percents: readonly number[], slo: Slo): AdapterSummary[] {
  const groups = new Map<string | null, RequestRecord[]>()
  for (const record of records) {
    const group = groups.get(record.adapter)
    if (group === undefined) groups.set(record.adapter, [record])
    else group.push(record)
  }
  return [...groups]
    .map(([adapter, group]): AdapterSummary => {
      const { ttft, tpot, e2el } = latencies(group, percents)
      return {
        adapter,
        numRequests: group.length,
        ...countOutcomes(group),
        outputTokens: group.reduce((sum, record) => sum + (record.outcome === 'success' ? record.outputLen : 0), 0),
        ttft,
        tpot,
        e2el,
        attainment: attainment(group, slo).slo,
      }
    })
    .sort((a, b) => b.numRequests - a.numRequests)
}

export interface ColdWarm {
  /** How cold was told: first use in the run, or not among the last so many distinct adapters. */
  readonly rule: string
  /** TTFT, ms. */
  readonly cold: Summary
  readonly warm: Summary
}

/**
 * TTFT of requests whose adapter was probably not resident against those whose was. With `residentAdapters` slots under LRU
 * a request is cold when its adapter is not among that many most recently used; without, when it is the adapter's first.
 * Warmed-up adapters count as used before, in the order given.
 */
export function coldWarm(
  records: readonly RequestRecord[],
  percents: readonly number[],
  residentAdapters: number | null,
  warmedUp: readonly string[],
): ColdWarm {
  const cold: number[] = []
  const warm: number[] = []
  // A Map keeps order of insertion: its first key is the least recently used.
  const recent = new Map<string, true>(warmedUp.map((name) => [name, true]))
  const capacity = residentAdapters ?? Number.POSITIVE_INFINITY
  const trim = (): void => {
    for (const oldest of recent.keys()) {
      if (recent.size <= capacity) return
      recent.delete(oldest)
    }
  }
  trim()
  for (const record of [...records].sort((a, b) => a.startS - b.startS)) {
    if (record.adapter === null) continue
    const isWarm = recent.delete(record.adapter)
    recent.set(record.adapter, true)
    trim()
    if (record.outcome === 'success' && record.ttftS !== null) (isWarm ? warm : cold).push(record.ttftS * 1000)
  }
  return {
    rule: residentAdapters === null ? "the adapter's first request" : `not among the last ${residentAdapters} adapters`,
    cold: summarize(Float64Array.from(cold), percents),
    warm: summarize(Float64Array.from(warm), percents),
  }
}
