// The result on a terminal, in the order in which a reader asks: did it work, how fast, how late, who was served.
import type { BenchResult } from './bench-result.ts'
import { LATENCY_NAMES } from './serve-summary.ts'

const NAMES = { ttft: 'TTFT', tpot: 'TPOT', itl: 'ITL', e2el: 'E2EL' } as const

/** Adapters listed; the result file has all of them. */
const MAX_ADAPTERS = 12

export function formatResult(result: BenchResult, percents: readonly number[]): string {
  const { lorikeet } = result
  const value = (key: string): number => Number(result[key] ?? 0)
  const lines = [
    `${ENDINGS[lorikeet.ending]}  ${value('duration').toFixed(2)} s`,
    '',
    row('requests', [
      `${lorikeet.completed} completed`,
      `${lorikeet.failed} failed`,
      `${lorikeet.rejected} rejected`,
      `${lorikeet.aborted} aborted`,
      ...(lorikeet.not_sent > 0 ? [`${lorikeet.not_sent} not sent`] : []),
    ]),
    ...lorikeet.errors
      .slice(0, 3)
      .map(({ message, status, count }) => `  ${count} x ${status === 0 ? '' : `${status} `}${message}`),
    row('tokens', [`${value('total_input_tokens')} in`, `${value('total_output_tokens')} out`]),
    row('throughput', [
      `${value('request_throughput').toFixed(2)} req/s`,
      `${value('output_throughput').toFixed(1)} output tok/s`,
      `${value('total_token_throughput').toFixed(1)} total tok/s`,
    ]),
    ...(result['request_goodput'] === null
      ? []
      : [row('goodput', [`${value('request_goodput').toFixed(2)} req/s within limits`, share(lorikeet.attainment.slo)])]),
    row('concurrency', [`${lorikeet.mean_concurrency.toFixed(1)} mean`, `${value('max_concurrent_requests')} peak`]),
    '',
    latencyTable(result, percents),
    '',
    ...adapterLines(result),
    clientLine(result),
    ...notes(result),
  ]
  return lines.join('\n')
}

const ENDINGS = {
  completed: 'Run completed.',
  interrupted: 'Run interrupted: this is the report of what was done.',
  'server-died': 'The server died during the run: this is the report of what was done.',
} as const

const share = (part: number | null): string => `${((part ?? 0) * 100).toFixed(1)} % of requests`

const row = (name: string, values: readonly string[]): string => `${name.padEnd(14)}${values.join('   ')}`

function latencyTable(result: BenchResult, percents: readonly number[]): string {
  const columns = ['mean', ...percents.map((percent) => `p${percent}`)]
  const head = `${'ms'.padEnd(14)}${columns.map((column) => column.padStart(10)).join('')}`
  const rows = LATENCY_NAMES.map((name) => {
    const cells = columns.map((column) => formatMs(Number(result[`${column}_${name}_ms`] ?? 0)).padStart(10))
    return `${NAMES[name].padEnd(14)}${cells.join('')}`
  })
  return [head, ...rows].join('\n')
}

export function formatMs(ms: number): string {
  if (ms >= 1000) return ms.toFixed(0)
  return ms >= 100 ? ms.toFixed(1) : ms.toFixed(2)
}

function adapterLines(result: BenchResult): string[] {
  const { by_adapter: adapters, cold_warm: cold } = result.lorikeet
  if (adapters.length <= 1) return []
  const lines = [
    `${'adapter'.padEnd(20)}${['requests', 'done', 'TTFT p50', 'TPOT p50', 'E2EL p50'].map((name) => name.padStart(10)).join('')}`,
  ]
  for (const adapter of adapters.slice(0, MAX_ADAPTERS)) {
    const cells = [
      String(adapter.numRequests),
      String(adapter.completed),
      formatMs(adapter.ttft.median),
      formatMs(adapter.tpot.median),
      formatMs(adapter.e2el.median),
    ]
    lines.push(`${(adapter.adapter ?? '(base)').slice(0, 19).padEnd(20)}${cells.map((cell) => cell.padStart(10)).join('')}`)
  }
  if (adapters.length > MAX_ADAPTERS) lines.push(`... and ${adapters.length - MAX_ADAPTERS} more in the result file`)
  if (cold.cold.count > 0) {
    lines.push(
      `cold TTFT (${cold.rule}) p50 ${formatMs(cold.cold.median)} ms over ${cold.cold.count}, warm ${formatMs(cold.warm.median)} ms over ${cold.warm.count}`,
    )
  }
  return [...lines, '']
}

/** Above this the client itself may be what is measured. */
const BUSY_CLIENT_LAG_MS = 5

function clientLine(result: BenchResult): string {
  const { schedule_lag_ms: lag, event_loop_delay_ms: delay } = result.lorikeet.client
  const p99 = lag.percentiles['99'] ?? lag.median
  const warning = p99 > BUSY_CLIENT_LAG_MS ? '  (the client is a bottleneck: use --client-processes)' : ''
  return row('client', [`schedule lag p99 ${formatMs(p99)} ms`, `event-loop delay p99 ${formatMs(delay.p99)} ms`]) + warning
}

function notes(result: BenchResult): string[] {
  const { lorikeet } = result
  const lines = ['latencies are over successful requests only']
  if (lorikeet.clipped_requests > 0) {
    const context = lorikeet.setup['max_model_len']
    lines.push(`${lorikeet.clipped_requests} requests were cut to the model's context of ${context} tokens`)
  }
  if (lorikeet.output_lengths_counted_by !== 'usage') {
    lines.push('the server reports no usage: output tokens are counted as streamed messages')
  }
  return lines.map((line) => `note: ${line}`)
}
