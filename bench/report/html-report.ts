// One HTML file that needs nothing else: opens from disk, on a phone, on paper. Charts are SVG until the page's script draws them.
import { readFile } from 'node:fs/promises'
import type { BenchResult } from '../metrics/bench-result.ts'
import { formatMs } from '../metrics/format-result.ts'
import { LATENCY_NAMES } from '../metrics/serve-summary.ts'
import {
  adapterBars,
  type Chart,
  latencyCdf,
  type NamedResult,
  queueOverTime,
  rateSweep,
  requestsOverTime,
  throughputOverTime,
} from './charts.ts'
import { escapeHtml, scriptJson } from './escape-html.ts'
import { chartLibraryFile, FIGURE_SIZE, loadChartLibrary, renderSvg } from './render-svg.ts'
import { REPORT_STYLE } from './report-style.ts'
import { adapterTable, comparisonTable, errorTable, loadOf, setupTable } from './tables.ts'

/** Draws every chart in place of its SVG, and again when the window changes. Paper keeps the SVG. */
const PAGE_SCRIPT = `
const options = JSON.parse(document.getElementById('charts').textContent);
const drawings = Object.entries(options).map(([id, option]) => {
  const place = document.getElementById(id);
  const drawing = echarts.init(place);
  drawing.setOption(option);
  place.parentElement.classList.add('live');
  drawing.resize();
  return drawing;
});
addEventListener('resize', () => { for (const drawing of drawings) drawing.resize(); });
`

export interface ReportInput {
  readonly title: string
  readonly results: readonly NamedResult[]
  /** Lines on whether the run passed, as `--preset` prints them. */
  readonly verdicts: readonly string[]
}

export async function renderReport(input: ReportInput): Promise<string> {
  const { title, results } = input
  const library = await loadChartLibrary()
  const charts = [
    rateSweep(results),
    ...LATENCY_NAMES.map((name) => latencyCdf(results, name)),
    throughputOverTime(results),
    requestsOverTime(results),
    queueOverTime(results),
    adapterBars(results),
  ].filter((chart): chart is Chart => chart !== null)
  const figures = charts.map((chart) => figure(chart, renderSvg(library, chart, FIGURE_SIZE))).join('\n')
  const options = Object.fromEntries(charts.map(({ id, option }) => [id, option]))
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="lorikeet bench">
<title>${escapeHtml(title)}</title>
<style>${REPORT_STYLE}</style>
</head>
<body>
<header>
<h1>${escapeHtml(title)}</h1>
<p class="note">${escapeHtml(subtitle(results))}</p>
</header>
<main>
${results.length === 1 && results[0] !== undefined ? cards(results[0].result) : ''}
${verdictList(input.verdicts)}
<section><h2>${results.length > 1 ? 'Comparison' : 'Summary'}</h2>${comparisonTable(results)}
<p class="note">Milliseconds. Latencies are over successful requests only.</p></section>
<div class="figures">
${figures}
</div>
${results.map((named) => runSection(named, results.length > 1)).join('\n')}
</main>
<script type="application/json" id="charts">${scriptJson(options)}</script>
<script>${(await readFile(chartLibraryFile(), 'utf8')).replace(/<\/script/gi, '<\\/script')}</script>
<script>${PAGE_SCRIPT}</script>
</body>
</html>
`
}

function subtitle(results: readonly NamedResult[]): string {
  const [first] = results
  if (first === undefined) return ''
  const { result } = first
  const { dataset, adapter_popularity: popularity, num_adapters: numAdapters } = result.lorikeet.setup
  const model = String(result['model_id'] ?? '')
  return `${model}, ${String(dataset)}, ${String(numAdapters)} adapters (${String(popularity)}), ${String(result['date'] ?? '')}`
}

function figure({ id, title, note }: Chart, svg: string): string {
  return `<figure><figcaption><h3>${escapeHtml(title)}</h3><p class="note">${escapeHtml(note)}</p></figcaption>
<div class="chart"><div class="canvas" id="${id}"></div><div class="svg">${svg}</div></div></figure>`
}

function cards(result: BenchResult): string {
  const value = (key: string): number => Number(result[key] ?? 0)
  const { lorikeet } = result
  const notDone = lorikeet.failed + lorikeet.rejected + lorikeet.aborted
  const list: readonly (readonly [name: string, text: string, detail: string])[] = [
    [
      'Requests',
      `${value('request_throughput').toFixed(2)}/s`,
      `${lorikeet.completed} completed, ${notDone} not; ${loadOf(result)}`,
    ],
    [
      'Output',
      `${value('output_throughput').toFixed(0)} tok/s`,
      `${value('total_output_tokens')} tokens in ${value('duration').toFixed(1)} s`,
    ],
    ['TTFT p50', `${formatMs(value('median_ttft_ms'))} ms`, `p99 ${formatMs(value('p99_ttft_ms'))} ms`],
    ['TPOT p50', `${formatMs(value('median_tpot_ms'))} ms`, `p99 ${formatMs(value('p99_tpot_ms'))} ms`],
    ['In flight', lorikeet.mean_concurrency.toFixed(1), `peak ${value('max_concurrent_requests')}`],
    lorikeet.attainment.slo === null
      ? ['First token in 6 s', `${(lorikeet.attainment.slora * 100).toFixed(1)} %`, 'of all requests sent']
      : [
          'Within limits',
          `${(lorikeet.attainment.slo * 100).toFixed(1)} %`,
          `goodput ${value('request_goodput').toFixed(2)} req/s`,
        ],
  ]
  const card = ([name, text, detail]: (typeof list)[number]): string =>
    `<div class="card"><div class="name">${escapeHtml(name)}</div><div class="value">${escapeHtml(text)}</div><div class="note">${escapeHtml(detail)}</div></div>`
  return `<div class="cards">${list.map(card).join('')}</div>`
}

function verdictList(verdicts: readonly string[]): string {
  if (verdicts.length === 0) return ''
  return `<section><h2>Pass bars</h2><ul>${verdicts.map((verdict) => `<li>${escapeHtml(verdict)}</li>`).join('')}</ul></section>`
}

function runSection({ name, result }: NamedResult, isNamed: boolean): string {
  const { lorikeet } = result
  const { cold, warm, rule } = lorikeet.cold_warm
  const { schedule_lag_ms: lag, event_loop_delay_ms: delay } = lorikeet.client
  const coldLine =
    cold.count === 0
      ? ''
      : `<p>Cold first token (${escapeHtml(rule)}): p50 ${formatMs(cold.median)} ms over ${cold.count} requests; warm ${formatMs(warm.median)} ms over ${warm.count}.</p>`
  const errors = errorTable(result)
  return `<section class="run"><h2>${isNamed ? escapeHtml(name) : 'Details'}</h2>
${lorikeet.ending === 'completed' ? '' : `<p class="warn">The run ${lorikeet.ending === 'interrupted' ? 'was interrupted' : 'ended when the server died'}; ${lorikeet.not_sent} requests were not sent.</p>`}
<h3>Adapters</h3>${adapterTable(result)}${coldLine}
${errors === '' ? '' : `<h3>Failures</h3>${errors}`}
<details><summary>Set-up and client</summary>
<p>Schedule lag p99 ${formatMs(lag.percentiles['99'] ?? lag.median)} ms, event-loop delay p99 ${formatMs(delay.p99)} ms: the client's own share of what was measured.</p>
${setupTable(result)}</details></section>`
}
