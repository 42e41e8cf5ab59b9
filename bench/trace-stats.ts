// What a trace looks like: count, span, rate, burstiness and lengths, to check a file or a loader against published figures.
import { Samples, type Summary, summarize } from './metrics/statistics.ts'
import type { TraceRecord } from './readers/trace-record.ts'

export interface TraceStats {
  readonly count: number
  /** First to last arrival, seconds. */
  readonly spanS: number
  /** Count over span. */
  readonly rateRps: number
  /** Coefficient of variation of the gaps between arrivals. */
  readonly gapCv: number
  readonly input: Summary
  readonly output: Summary
  /** Distinct keys (functions, clients). */
  readonly numKeys: number
  /** Share of requests of the most frequent 1 % of keys, at least one. */
  readonly topPercentShare: number
  /** Share of block ids that an earlier request had. */
  readonly blockReuse: number
}

const PERCENTS = [50, 90, 99]

/** Reads the whole trace; holds lengths and keys, not records. */
export async function traceStats(records: AsyncIterable<TraceRecord>): Promise<TraceStats> {
  const input = new Samples()
  const output = new Samples()
  const gaps = new Samples()
  const countOfKey = new Map<string, number>()
  const blocks = new Set<number>()
  let count = 0
  let numBlocks = 0
  let previousS: number | null = null
  let spanS = 0
  for await (const record of records) {
    count += 1
    if (record.inputLen !== null) input.push(record.inputLen)
    if (record.outputLen !== null) output.push(record.outputLen)
    if (record.timeS !== null) {
      if (previousS !== null) gaps.push(record.timeS - previousS)
      previousS = record.timeS
      spanS = record.timeS
    }
    if (record.key !== null) countOfKey.set(record.key, (countOfKey.get(record.key) ?? 0) + 1)
    for (const id of record.blockIds ?? []) {
      numBlocks += 1
      blocks.add(id)
    }
  }
  const gapSummary = summarize(gaps.values(), [])
  return {
    count,
    spanS,
    rateRps: spanS > 0 ? count / spanS : 0,
    gapCv: gapSummary.mean > 0 ? gapSummary.std / gapSummary.mean : 0,
    input: summarize(input.values(), PERCENTS),
    output: summarize(output.values(), PERCENTS),
    numKeys: countOfKey.size,
    topPercentShare: topShare([...countOfKey.values()], count),
    blockReuse: numBlocks > 0 ? (numBlocks - blocks.size) / numBlocks : 0,
  }
}

function topShare(counts: number[], total: number): number {
  if (total === 0) return 0
  const top = counts.sort((a, b) => b - a).slice(0, Math.max(1, Math.floor(counts.length / 100)))
  return top.reduce((sum, count) => sum + count, 0) / total
}
