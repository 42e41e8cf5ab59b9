// ORCA load reports: a balancer asks with one request header and reads the load from the answer's.

import type { EngineStats } from '../../engine/messages.ts'

export const LOAD_REQUEST_HEADER = 'endpoint-load-metrics-format'
export const LOAD_RESPONSE_HEADER = 'endpoint-load-metrics'

/** The header's value; null for a format that is not known. */
export function loadReport(format: string, stats: EngineStats): string | null {
  const { numBlocks, numUsedBlocks, numWaiting } = stats
  const metrics = {
    kv_cache_usage_perc: numBlocks === 0 ? 0 : numUsedBlocks / numBlocks,
    num_requests_waiting: numWaiting,
  }
  switch (format.toUpperCase()) {
    case 'TEXT':
      return `TEXT ${Object.entries(metrics)
        .map(([name, value]) => `named_metrics.${name}=${value}`)
        .join(', ')}`
    case 'JSON':
      return `JSON ${JSON.stringify({ named_metrics: metrics })}`
    default:
      return null
  }
}
