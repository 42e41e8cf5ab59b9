// The tables of a report: comparison of runs, adapters, failures, set-up.
import type { BenchResult } from '../metrics/bench-result.ts'
import { formatMs } from '../metrics/format-result.ts'
import { LATENCY_NAMES } from '../metrics/serve-summary.ts'
import type { NamedResult } from './charts.ts'
import { escapeHtml } from './escape-html.ts'

const value = (result: BenchResult, key: string): number => Number(result[key] ?? 0)

interface Column {
  readonly name: string
  readonly cell: (result: BenchResult) => string
}

/** p99 where the run has it, else its highest percentile. */
function tailPercent(result: BenchResult): string {
  const percents = Object.keys(result).flatMap((key) => /^p([\d.]+)_ttft_ms$/.exec(key)?.[1] ?? [])
  return percents.includes('99') ? '99' : (percents.at(-1) ?? '50')
}

export function comparisonTable(results: readonly NamedResult[]): string {
  const tail = tailPercent(results[0]?.result ?? ({} as BenchResult))
  const columns: readonly Column[] = [
    { name: 'load', cell: loadOf },
    {
      name: 'completed',
      cell: (result) => `${value(result, 'completed')} / ${value(result, 'completed') + value(result, 'failed')}`,
    },
    { name: 'req/s', cell: (result) => value(result, 'request_throughput').toFixed(2) },
    { name: 'out tok/s', cell: (result) => value(result, 'output_throughput').toFixed(0) },
    ...LATENCY_NAMES.flatMap((name): Column[] => [
      { name: `${name.toUpperCase()} p50`, cell: (result) => formatMs(value(result, `median_${name}_ms`)) },
      { name: `${name.toUpperCase()} p${tail}`, cell: (result) => formatMs(value(result, `p${tail}_${name}_ms`)) },
    ]),
    ...(results.some(({ result }) => result.lorikeet.attainment.slo !== null)
      ? [{ name: 'in limits', cell: (result: BenchResult) => percent(result.lorikeet.attainment.slo) }]
      : []),
  ]
  const rows = results.map(({ name, result }) => [name, ...columns.map(({ cell }) => cell(result))])
  return table(['run', ...columns.map(({ name }) => name)], rows)
}

/** A closed loop is described by its concurrency, never by a rate. */
export function loadOf(result: BenchResult): string {
  const rate = result['request_rate']
  if (rate === null || rate === undefined) {
    const cap = result['max_concurrency']
    return cap === null || cap === undefined ? 'as in the trace' : `${String(cap)} in flight`
  }
  return rate === 'inf' ? 'all at once' : `${String(rate)} req/s`
}

const percent = (share: number | null): string => (share === null ? '–' : `${(share * 100).toFixed(1)} %`)

/** Rows of the per-adapter table; the result file has all. */
const MAX_ROWS = 200

export function adapterTable(result: BenchResult): string {
  const { by_adapter: adapters } = result.lorikeet
  const rows = adapters
    .slice(0, MAX_ROWS)
    .map((adapter) => [
      adapter.adapter ?? '(base)',
      String(adapter.numRequests),
      String(adapter.completed),
      String(adapter.failed + adapter.rejected + adapter.aborted),
      String(adapter.outputTokens),
      formatMs(adapter.ttft.median),
      formatMs(adapter.ttft.percentiles['99'] ?? adapter.ttft.median),
      formatMs(adapter.tpot.median),
      formatMs(adapter.e2el.median),
      percent(adapter.attainment),
    ])
  const more =
    adapters.length > MAX_ROWS ? `<p class="note">… and ${adapters.length - MAX_ROWS} more in the result file.</p>` : ''
  const head = [
    'adapter',
    'requests',
    'completed',
    'not',
    'out tokens',
    'TTFT p50',
    'TTFT p99',
    'TPOT p50',
    'E2EL p50',
    'within limits',
  ]
  return table(head, rows) + more
}

export function errorTable(result: BenchResult): string {
  const rows = result.lorikeet.errors.map(({ message, status, count }) => [
    String(count),
    status === 0 ? '–' : String(status),
    message,
  ])
  return rows.length === 0 ? '' : table(['count', 'status', 'message'], rows, 2)
}

/** Nested set-up facts as flat names. */
export function setupTable(result: BenchResult): string {
  const rows: string[][] = []
  const walk = (name: string, fact: unknown): void => {
    if (typeof fact === 'object' && fact !== null && !Array.isArray(fact)) {
      for (const [key, inner] of Object.entries(fact)) walk(name === '' ? key : `${name}.${key}`, inner)
    } else if (fact !== null) rows.push([name, typeof fact === 'string' ? fact : JSON.stringify(fact)])
  }
  walk('', result.lorikeet.setup)
  return table(['setting', 'value'], rows, 1)
}

/** @param textFrom column from which cells are text, set left; before it only the first is */
function table(head: readonly string[], rows: readonly (readonly string[])[], textFrom = Number.POSITIVE_INFINITY): string {
  const cell = (tag: string, text: string, column: number): string => {
    const isText = column === 0 || column >= textFrom
    const kind = isText ? (column >= textFrom ? ' class="text wrap"' : ' class="text"') : ''
    return `<${tag}${kind}>${escapeHtml(text)}</${tag}>`
  }
  const line = (tag: string, cells: readonly string[]): string =>
    `<tr>${cells.map((text, column) => cell(tag, text, column)).join('')}</tr>`
  return `<div class="scroll"><table><thead>${line('th', head)}</thead><tbody>${rows.map((row) => line('td', row)).join('')}</tbody></table></div>`
}
