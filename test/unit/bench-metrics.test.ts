import assert from 'node:assert/strict'
import { test } from 'node:test'
import { byAdapter, coldWarm } from '../../bench/metrics/adapter-summary.ts'
import { buildResult, type RunFacts } from '../../bench/metrics/bench-result.ts'
import type { RequestRecord } from '../../bench/metrics/request-record.ts'
import { attainment, latencies, NO_SLO, peaks, throughput } from '../../bench/metrics/serve-summary.ts'
import { percentileOfSorted, summarize } from '../../bench/metrics/statistics.ts'
import { cdf, timeline } from '../../bench/metrics/timeline.ts'

function record(changes: Partial<RequestRecord>): RequestRecord {
  return {
    index: 0,
    adapter: null,
    outcome: 'success',
    scheduledS: 0,
    dispatchedS: 0,
    startS: 0,
    ttftS: 1,
    firstTextS: 1,
    itlsS: [],
    e2elS: 1,
    inputLen: 10,
    outputLen: 1,
    outputSource: 'usage',
    cachedTokens: null,
    finishReason: 'length',
    httpStatus: 200,
    error: null,
    text: null,
    ...changes,
  }
}

/** Three answers, one failure and one rejection; every number below follows from these by hand. */
const records: readonly RequestRecord[] = [
  record({ index: 0, adapter: 'a', startS: 0, ttftS: 0.5, itlsS: [0.1, 0.3], e2elS: 0.9, inputLen: 10, outputLen: 3 }),
  record({
    index: 1,
    adapter: 'b',
    startS: 0.5,
    dispatchedS: 0.5,
    scheduledS: 0.498,
    ttftS: 1,
    itlsS: [0.5],
    e2elS: 1.5,
    inputLen: 20,
    outputLen: 2,
  }),
  record({
    index: 2,
    adapter: 'a',
    startS: 2,
    dispatchedS: 2,
    scheduledS: 2,
    ttftS: 0.2,
    itlsS: [],
    e2elS: 0.2,
    inputLen: 30,
    outputLen: 1,
  }),
  record({
    index: 3,
    adapter: 'b',
    startS: 2.5,
    dispatchedS: 2.5,
    scheduledS: 2.5,
    outcome: 'failed',
    ttftS: null,
    e2elS: 9,
    error: 'port 4711',
    httpStatus: 500,
  }),
  record({
    index: 4,
    startS: 3,
    dispatchedS: 3,
    scheduledS: 3,
    outcome: 'rejected',
    ttftS: null,
    e2elS: 0,
    error: 'full',
    httpStatus: 429,
  }),
]

const close = (actual: number | undefined, expected: number): void =>
  assert.ok(Math.abs((actual ?? Number.NaN) - expected) < 1e-9, `${actual} is not ${expected}`)

test('percentiles are linear between order statistics, the deviation is of the population', () => {
  assert.equal(percentileOfSorted([1, 2, 3, 4], 50), 2.5)
  assert.equal(percentileOfSorted([1, 2, 3, 4], 99), 3.97)
  assert.equal(percentileOfSorted([7], 99), 7)
  const summary = summarize(Float64Array.from([4, 2, 6, 8]), [25])
  assert.deepEqual([summary.mean, summary.median, summary.percentiles['25']], [5, 5, 3.5])
  close(summary.std, Math.sqrt(5))
  assert.deepEqual(summarize(new Float64Array(0), [99]), { count: 0, mean: 0, median: 0, std: 0, percentiles: { 99: 0 } })
})

test('latencies: failures left out, TPOT only above one token, ITL pooled', () => {
  const { ttft, tpot, itl, e2el } = latencies(records, [50])
  close(ttft.mean, (500 + 1000 + 200) / 3)
  close(ttft.median, 500)
  // (0.9 - 0.5) / 2 = 0.2 and (1.5 - 1) / 1 = 0.5
  assert.equal(tpot.count, 2)
  close(tpot.mean, 350)
  assert.equal(itl.count, 3)
  close(itl.mean, 300)
  close(e2el.mean, (900 + 1500 + 200) / 3)
})

test('throughput divides by the whole run; goodput takes a missing TPOT as 0', () => {
  const rates = throughput(records, 4, { ttftMs: 600, tpotMs: 300, e2elMs: null })
  assert.deepEqual([rates.requestsPerS, rates.totalInputTokens, rates.totalOutputTokens], [0.75, 60, 6])
  assert.deepEqual([rates.outputTokensPerS, rates.totalTokensPerS], [1.5, 16.5])
  // Requests 0 (500 ms, 200 ms) and 2 (200 ms, no TPOT) are good.
  assert.equal(rates.goodputPerS, 0.5)
  close(rates.meanConcurrency, (0.9 + 1.5 + 0.2) / 4)
  assert.equal(throughput(records, 4, NO_SLO).goodputPerS, null)
})

test('attainment counts every request sent; S-LoRA satisfaction falls with the square', () => {
  const met = attainment(records, { ttftMs: 600, tpotMs: null, e2elMs: null })
  assert.equal(met.slo, 0.4)
  assert.equal(met.slora, 0.6)
  close(met.sloraSatisfaction, (1 - (0.5 / 6) ** 2 + 1 - (1 / 6) ** 2 + 1 - (0.2 / 6) ** 2) / 5)
  assert.equal(attainment(records, NO_SLO).slo, null)
})

test('peaks: one-second buckets from the first send, as vLLM counts', () => {
  // Messages at 0.5, 0.6, 0.9 | 1.5 | 2.0, 2.2; requests overlap second 0 twice and seconds 1 and 2 once or twice.
  assert.deepEqual(peaks(records), { maxOutputTokensPerS: 3, maxConcurrentRequests: 2 })
})

test('by adapter, the most requested first, failures beside', () => {
  const adapters = byAdapter(records, [50], { ttftMs: 600, tpotMs: null, e2elMs: null })
  assert.deepEqual(
    adapters.map(({ adapter, numRequests, completed, failed, outputTokens, attainment: share }) => [
      adapter,
      numRequests,
      completed,
      failed,
      outputTokens,
      share,
    ]),
    [
      ['a', 2, 2, 0, 4, 1],
      ['b', 2, 1, 1, 2, 0],
      [null, 1, 0, 0, 0, 0],
    ],
  )
  close(adapters[0]?.ttft.median, 350)
})

test('cold and warm: first use, or LRU over so many slots', () => {
  const sequence = ['a', 'b', 'a', 'c', 'b', 'a'].map((adapter, index) =>
    record({ index, adapter, startS: index, ttftS: index + 1 }),
  )
  const byFirst = coldWarm(sequence, [50], null, [])
  assert.deepEqual([byFirst.cold.count, byFirst.warm.count], [3, 3])
  close(byFirst.cold.mean, (1000 + 2000 + 4000) / 3)
  // Two slots: a miss, b miss, a hit, c evicts b, b evicts a, a misses.
  assert.deepEqual([coldWarm(sequence, [50], 2, []).cold.count, coldWarm(sequence, [50], 2, []).warm.count], [5, 1])
  assert.equal(coldWarm(sequence, [50], null, ['a', 'b', 'c']).cold.count, 0)
  assert.equal(coldWarm(sequence, [50], 2, ['c', 'a', 'b']).cold.count, 3)
})

test('the timeline counts what was sent, ended and in flight each second', () => {
  const line = timeline(records, 4, [{ timeS: 1, numRunning: 1, numWaiting: 0 }])
  assert.deepEqual(line.sent, [2, 0, 2, 1])
  assert.deepEqual(line.completed, [1, 0, 2, 0])
  assert.deepEqual(line.notCompleted, [0, 0, 0, 2])
  assert.deepEqual(line.outputTokens, [3, 1, 2, 0])
  assert.deepEqual(line.inFlight, [1, 1, 1, 0])
})

test('a distribution keeps its ends and rises', () => {
  const points = cdf(
    Float64Array.from({ length: 1000 }, (_, index) => index),
    50,
  )
  assert.equal(points.length, 50)
  assert.deepEqual(points.at(-1), [999, 1])
  assert.ok(points.every((point, index) => index === 0 || point[0] >= (points[index - 1]?.[0] ?? 0)))
  assert.deepEqual(
    cdf(Float64Array.from([3, 1, 2]), 50).map(([value]) => value),
    [1, 2, 3],
  )
})

test("the result has vLLM's keys with vLLM's values, and ours beside", () => {
  const facts: RunFacts = {
    label: 'x',
    endpointType: 'openai',
    modelId: 'base',
    numPrompts: 5,
    metadata: { git: 'abc' },
    requestRate: Number.POSITIVE_INFINITY,
    burstiness: 1,
    maxConcurrency: null,
    ramp: null,
    slo: { ttftMs: 600, tpotMs: null, e2elMs: null },
    percents: [50, 99.9],
    residentAdapters: null,
    warmedUp: [],
    setup: { seed: 3 },
    savesDetails: true,
  }
  const load = {
    ending: 'completed' as const,
    records,
    durationS: 4,
    numNotSent: 0,
    numClipped: 1,
    eventLoopDelayMs: { mean: 0, p50: 0, p99: 1, max: 2 },
  }
  const result = buildResult(load, [], facts, new Date(2026, 0, 2, 3, 4, 5))
  assert.equal(result['date'], '20260102-030405')
  assert.deepEqual(
    [
      'request_rate',
      'completed',
      'failed',
      'request_throughput',
      'request_goodput',
      'output_throughput',
      'duration',
      'git',
      'ramp_up_strategy',
    ].map((key) => result[key]),
    ['inf', 3, 2, 0.75, 0.5, 1.5, 4, 'abc', undefined],
  )
  close(result['p50_ttft_ms'] as number, 500)
  close(result['p99.9_ttft_ms'] as number, 999)
  close(result['mean_itl_ms'] as number, 300)
  assert.deepEqual(result['ttfts'], [0.5, 1, 0.2, 0, 0])
  assert.deepEqual(result['output_lens'], [3, 2, 1, 0, 0])
  const { lorikeet } = result
  assert.deepEqual([lorikeet.failed, lorikeet.rejected, lorikeet.aborted], [1, 1, 0])
  assert.deepEqual(
    lorikeet.errors.map(({ message, count }) => [message, count]),
    [
      ['port 4711', 1],
      ['full', 1],
    ],
  )
  close(lorikeet.client.schedule_lag_ms.percentiles['50'], 0)
  assert.ok((lorikeet.client.schedule_lag_ms.percentiles['99.9'] ?? 0) > 1.9)
  assert.deepEqual(JSON.parse(JSON.stringify(result)), result, 'survives a file')
})
