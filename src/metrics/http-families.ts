// HTTP requests under the names of prometheus-fastapi-instrumentator, which vLLM's users have in their dashboards.

import { Summary } from 'prom-client'
import { HTTP_BOUNDS_S, HTTP_FINE_BOUNDS_S } from './buckets.ts'
import type { MetricsRegistry } from './metrics-registry.ts'
import type { HttpRecord } from './records.ts'
import type { Distribution, Tally, TextFamily } from './text-family.ts'

/** Probes and scrapes come more often than requests and would hide them. */
const NOT_COUNTED: ReadonlySet<string> = new Set(['/metrics', '/health', '/load', '/ping', '/version'])

export class HttpFamilies {
  readonly #requests: TextFamily<Tally>
  readonly #requestTallies = new Map<string, Tally>()
  readonly #durations: TextFamily<Distribution>
  readonly #durationSeries = new Map<string, Distribution>()
  readonly #fineDuration: Distribution
  readonly #requestBytes: Summary
  readonly #responseBytes: Summary

  constructor(registry: MetricsRegistry) {
    this.#requests = registry.tally('http_requests_total', 'counter', 'HTTP requests.', ['handler', 'method', 'status'])
    this.#durations = registry.distribution(
      'http_request_duration_seconds',
      'Time of HTTP requests, of streams to their end.',
      ['handler', 'method'],
      HTTP_BOUNDS_S,
    )
    this.#fineDuration = registry
      .distribution('http_request_duration_highr_seconds', 'The same in finer buckets.', [], HTTP_FINE_BOUNDS_S)
      .series({})
    const summary = (name: string, help: string) =>
      // Without percentiles: sum and count, as the instrumentator has them.
      new Summary({ name, help, labelNames: ['handler'], percentiles: [], registers: [registry.collected] })
    this.#requestBytes = summary('http_request_size_bytes', 'Bodies of HTTP requests.')
    this.#responseBytes = summary('http_response_size_bytes', 'Bodies of HTTP answers, of those that state their length.')
  }

  observe({ handler, method, statusCode, durationS, requestBytes, responseBytes }: HttpRecord): void {
    if (NOT_COUNTED.has(handler)) return
    const status = `${Math.floor(statusCode / 100)}xx`
    seriesOf(this.#requestTallies, `${method} ${status} ${handler}`, () =>
      this.#requests.series({ handler, method, status }),
    ).add(1)
    seriesOf(this.#durationSeries, `${method} ${handler}`, () => this.#durations.series({ handler, method })).observe(durationS)
    this.#fineDuration.observe(durationS)
    this.#requestBytes.observe({ handler }, requestBytes)
    this.#responseBytes.observe({ handler }, responseBytes)
  }
}

function seriesOf<S>(known: Map<string, S>, key: string, create: () => S): S {
  let series = known.get(key)
  if (series === undefined) {
    series = create()
    known.set(key, series)
  }
  return series
}
