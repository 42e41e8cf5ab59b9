import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type BenchResult, buildResult, type RunFacts } from '../../bench/metrics/bench-result.ts'
import type { RequestRecord } from '../../bench/metrics/request-record.ts'
import { latencyCdf, mainChart, type NamedResult, rateSweep } from '../../bench/report/charts.ts'
import { renderReport } from '../../bench/report/html-report.ts'
import { loadChartLibrary, README_SIZE, renderSvg } from '../../bench/report/render-svg.ts'
import { comparisonTable, loadOf } from '../../bench/report/tables.ts'

const EVIL = '</script><img src=x onerror=alert(1)>'

function result(requestRate: number | null, changes: Partial<RunFacts> = {}): BenchResult {
  const records = Array.from(
    { length: 30 },
    (_, index): RequestRecord => ({
      index,
      adapter: index % 3 === 0 ? EVIL : 'calm',
      outcome: index === 7 ? 'failed' : 'success',
      scheduledS: index / 10,
      dispatchedS: index / 10,
      startS: index / 10,
      ttftS: index === 7 ? null : 0.1 + index / 1000,
      firstTextS: 0.1,
      itlsS: [0.01, 0.02],
      e2elS: 0.2,
      inputLen: 5,
      outputLen: 3,
      outputSource: 'usage',
      cachedTokens: null,
      finishReason: 'length',
      httpStatus: 200,
      error: index === 7 ? EVIL : null,
      text: null,
    }),
  )
  const facts: RunFacts = {
    label: null,
    endpointType: 'openai',
    modelId: EVIL,
    numPrompts: 30,
    metadata: {},
    requestRate,
    burstiness: 1,
    maxConcurrency: requestRate === null ? 8 : null,
    ramp: null,
    slo: { ttftMs: 200, tpotMs: null, e2elMs: null },
    percents: [50, 99],
    residentAdapters: null,
    warmedUp: [],
    setup: { seed: 1, dataset: 'random', client: { cpu: EVIL } },
    savesDetails: false,
    ...changes,
  }
  const load = {
    ending: 'completed' as const,
    records,
    durationS: 3.2,
    numNotSent: 0,
    numClipped: 0,
    eventLoopDelayMs: { mean: 0, p50: 0, p99: 1, max: 1 },
  }
  return buildResult(load, [{ timeS: 1, numRunning: 2, numWaiting: 1 }], facts, new Date())
}

const named = (rates: readonly (number | null)[]): NamedResult[] =>
  rates.map((rate) => ({ name: `rate ${rate}`, result: result(rate) }))

test('a report is one file: nothing is loaded from elsewhere, and no text of a server becomes markup', async () => {
  const page = await renderReport({ title: EVIL, results: named([1, 2]), verdicts: [EVIL] })
  assert.ok(!/<(?:script|link|img)[^>]+(?:src|href)=/.test(page.replace(/<script>[\s\S]*?<\/script>/g, '')))
  const withoutLibrary = page.slice(0, page.indexOf('<script>'))
  assert.ok(!withoutLibrary.includes(EVIL))
  assert.ok(!withoutLibrary.includes('<img'))
  assert.ok(withoutLibrary.includes('&lt;/script&gt;&lt;img'))
  for (const id of ['sweep', 'cdf-ttft', 'cdf-tpot', 'cdf-itl', 'cdf-e2el', 'throughput', 'requests', 'queue', 'adapters']) {
    assert.ok(page.includes(`<div class="canvas" id="${id}">`), id)
  }
  assert.equal(page.match(/<svg/g)?.length, 9, 'each chart is there without the script')
  assert.ok(page.includes('name="viewport"') && page.includes('@media print'))
})

test('charts: a distribution ends at 100 %, a sweep needs two rates, the main chart is the sweep where there is one', async () => {
  const series = (chart: { option: Readonly<Record<string, unknown>> } | null) =>
    (chart?.option['series'] ?? []) as { name: string; data: [number, number][] }[]
  const [ttft] = series(latencyCdf(named([1]), 'ttft'))
  assert.deepEqual(ttft?.data.at(-1), [129, 100])
  assert.equal(rateSweep(named([1, 1])), null)
  assert.equal(rateSweep(named([null, 4])), null)
  assert.deepEqual(
    series(rateSweep(named([4, 1])))[0]?.data.map(([rate]) => rate),
    [1, 4],
  )
  assert.equal(mainChart(named([1, 2])).id, 'sweep')
  assert.equal(mainChart(named([1])).id, 'main')
  const svg = renderSvg(await loadChartLibrary(), mainChart(named([1])), README_SIZE)
  assert.match(svg, /^<svg [^>]*viewBox/)
})

test('a closed loop is described by its concurrency, never by a rate', () => {
  assert.equal(loadOf(result(null)), '8 in flight')
  assert.equal(loadOf(result(Number.POSITIVE_INFINITY)), 'all at once')
  assert.equal(loadOf(result(2.5)), '2.5 req/s')
  assert.ok(comparisonTable(named([null])).includes('29 / 30'))
})
