// The charts of a report as plain chart options: drawn as SVG here for print and README, and interactively in the page.
import type { BenchResult } from '../metrics/bench-result.ts'
import type { LatencyName } from '../metrics/serve-summary.ts'

/** What goes to the chart library: data only, so that it survives the way into the page. */
export type ChartOption = Readonly<Record<string, unknown>>

export interface Chart {
  readonly id: string
  readonly title: string
  readonly note: string
  readonly option: ChartOption
}

/** One result with the name it has in legends. */
export interface NamedResult {
  readonly name: string
  readonly result: BenchResult
}

/** Okabe and Ito's palette: told apart by colour-blind readers and in grey print. */
const COLORS = ['#0072B2', '#E69F00', '#009E73', '#D55E00', '#CC79A7', '#56B4E9', '#8C8C8C', '#000000']

const INK = '#334155'
const RULE = '#e2e8f0'

type Point = readonly [x: number, y: number]

interface Line {
  readonly name: string
  readonly points: readonly Point[]
  readonly dashed?: boolean
}

interface Axis {
  readonly name: string
  readonly type?: 'value' | 'log'
  readonly max?: number
  readonly min?: number
}

function lineChart(lines: readonly Line[], x: Axis, y: Axis, marks = false): ChartOption {
  const axis = ({ name, type = 'value', ...limits }: Axis, isVertical: boolean): ChartOption => ({
    type,
    name,
    nameLocation: isVertical ? 'end' : 'middle',
    nameGap: isVertical ? 12 : 28,
    nameTextStyle: { color: INK, align: isVertical ? 'left' : 'center' },
    axisLabel: { color: INK, hideOverlap: true },
    axisLine: { lineStyle: { color: RULE } },
    splitLine: { lineStyle: { color: RULE } },
    ...limits,
  })
  return {
    color: COLORS,
    animation: false,
    textStyle: { fontFamily: 'system-ui, sans-serif' },
    legend: {
      show: lines.length > 1,
      type: 'scroll',
      top: 0,
      textStyle: { color: INK },
      icon: 'roundRect',
      itemWidth: 14,
      itemHeight: 4,
    },
    grid: { left: 8, right: 16, top: lines.length > 1 ? 52 : 28, bottom: 36, containLabel: true },
    tooltip: { trigger: 'axis', confine: true, axisPointer: { type: 'line' } },
    xAxis: axis(x, false),
    yAxis: axis(y, true),
    series: lines.map(({ name, points, dashed }) => ({
      type: 'line',
      name,
      data: points,
      showSymbol: marks,
      symbolSize: 7,
      lineStyle: { width: 2, type: dashed === true ? 'dashed' : 'solid' },
      emphasis: { focus: 'series' },
    })),
  }
}

const LATENCY_TITLES: Readonly<Record<LatencyName, string>> = {
  ttft: 'Time to first token',
  tpot: 'Time per output token',
  itl: 'Gap between tokens',
  e2el: 'End-to-end latency',
}

/** Log axes have no zero; gaps below this are tokens that shared a packet. */
const SMALLEST_MS = 0.1

export function latencyCdf(results: readonly NamedResult[], latency: LatencyName): Chart {
  const lines = results.map(({ name, result }) => ({
    name,
    points: result.lorikeet.cdf[latency].map(([ms, share]): Point => [round(Math.max(ms, SMALLEST_MS)), round(share * 100)]),
  }))
  return {
    id: `cdf-${latency}`,
    title: LATENCY_TITLES[latency],
    note: `Share of ${latency === 'itl' ? 'gaps' : 'successful requests'} at or below, %`,
    option: lineChart(lines, { name: 'ms', type: 'log' }, { name: '%', min: 0, max: 100 }),
  }
}

export function throughputOverTime(results: readonly NamedResult[]): Chart {
  const lines = results.map(({ name, result }) => ({
    name,
    points: perSecond(result, result.lorikeet.timeline.outputTokens),
  }))
  return {
    id: 'throughput',
    title: 'Output tokens a second',
    note: 'Streamed messages with tokens, by second of the run',
    option: lineChart(lines, { name: 's' }, { name: 'tokens/s', min: 0 }),
  }
}

/** One run is shown against its schedule; several are compared by what they completed. */
export function requestsOverTime(results: readonly NamedResult[]): Chart {
  const isComparison = results.length > 1
  const lines = results.flatMap(({ name, result }): Line[] => {
    const { sent, completed } = result.lorikeet.timeline
    const done = { name: isComparison ? name : 'completed', points: perSecond(result, completed) }
    return isComparison ? [done] : [{ name: 'sent', points: perSecond(result, sent), dashed: true }, done]
  })
  return {
    id: 'requests',
    title: 'Requests a second',
    note: isComparison ? 'Completed, by second of the run' : 'Sent by the schedule, and completed',
    option: lineChart(lines, { name: 's' }, { name: 'requests/s', min: 0 }),
  }
}

export function queueOverTime(results: readonly NamedResult[]): Chart {
  const isComparison = results.length > 1
  const lines = results.flatMap(({ name, result }): Line[] => {
    const { stepS, inFlight, queue } = result.lorikeet.timeline
    const points = inFlight.map((count, step): Point => [(step + 1) * stepS, count])
    const own: Line = { name: isComparison ? name : 'in flight', points }
    if (isComparison || queue.length === 0) return [own]
    const waiting = queue.map((sample): Point => [round(sample.timeS), sample.numWaiting])
    return [own, { name: 'server: waiting', points: waiting, dashed: true }]
  })
  return {
    id: 'queue',
    title: 'Queue',
    note: isComparison ? 'Requests in flight' : "Requests in flight, and those the server's gauges call waiting",
    option: lineChart(lines, { name: 's' }, { name: 'requests', min: 0 }),
  }
}

/** What a sweep over the rate asks: how does latency grow with load. Null when the results do not differ in rate. */
export function rateSweep(results: readonly NamedResult[]): Chart | null {
  const points = results
    .map(({ result }) => ({ rate: Number(result['request_rate']), result }))
    .filter(({ rate }) => Number.isFinite(rate) && rate > 0)
    .sort((a, b) => a.rate - b.rate)
  if (new Set(points.map(({ rate }) => rate)).size < 2) return null
  const series = (name: string, key: string): Line => ({
    name,
    points: points.map(({ rate, result }): Point => [rate, round(Number(result[key] ?? 0))]),
  })
  const percent = points[0]?.result['p99_ttft_ms'] === undefined ? 'median' : 'p99'
  return {
    id: 'sweep',
    title: 'Latency against offered rate',
    note: 'One point a run',
    option: lineChart(
      [
        series('TTFT median', 'median_ttft_ms'),
        series(`TTFT ${percent}`, `${percent}_ttft_ms`),
        series('TPOT median', 'median_tpot_ms'),
      ],
      { name: 'requests/s offered' },
      { name: 'ms', type: 'log' },
      true,
    ),
  }
}

/** Bars shown; the table has the rest. */
const MAX_BARS = 30

/** Requests and median first token of each adapter, the most requested first. Null with one adapter or none. */
export function adapterBars(results: readonly NamedResult[]): Chart | null {
  const [first] = results
  const adapters = first?.result.lorikeet.by_adapter.slice(0, MAX_BARS) ?? []
  if (adapters.length < 2) return null
  const base = lineChart([], { name: '' }, { name: 'ms', min: 0 })
  return {
    id: 'adapters',
    title: 'Median time to first token by adapter',
    note: `The most requested first${results.length > 1 ? `; ${first?.name}` : ''}`,
    option: {
      ...base,
      legend: { show: false },
      xAxis: {
        type: 'category',
        data: adapters.map(({ adapter }) => adapter ?? '(base)'),
        axisLabel: { color: INK, rotate: 45, hideOverlap: true },
        axisLine: { lineStyle: { color: RULE } },
      },
      series: [{ type: 'bar', name: 'TTFT p50, ms', data: adapters.map(({ ttft }) => round(ttft.median)), barMaxWidth: 28 }],
    },
  }
}

/** The one picture for a README: the sweep where there is one, else first-token and end-to-end latency together. */
export function mainChart(results: readonly NamedResult[]): Chart {
  const sweep = rateSweep(results)
  if (sweep !== null) return sweep
  const lines = results.flatMap(({ name, result }): Line[] =>
    (['ttft', 'e2el'] as const).map((latency) => ({
      name: `${prefix(results, name)}${LATENCY_TITLES[latency].toLowerCase()}`,
      points: result.lorikeet.cdf[latency].map(([ms, share]): Point => [round(Math.max(ms, SMALLEST_MS)), round(share * 100)]),
      dashed: latency === 'e2el',
    })),
  )
  return {
    id: 'main',
    title: 'Latency',
    note: 'Share of successful requests at or below, %',
    option: lineChart(lines, { name: 'ms', type: 'log' }, { name: '% of requests', min: 0, max: 100 }),
  }
}

function perSecond(result: BenchResult, counts: readonly number[]): readonly Point[] {
  const { stepS } = result.lorikeet.timeline
  return counts.map((count, step): Point => [step * stepS, round(count / stepS)])
}

const prefix = (results: readonly NamedResult[], name: string): string => (results.length > 1 ? `${name}: ` : '')

const round = (value: number): number => Number(value.toPrecision(5))
