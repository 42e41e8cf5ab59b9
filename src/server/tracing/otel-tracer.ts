// Traces by OpenTelemetry's SDK: one span a call, sent in batches by OTLP over HTTP. Sampling, service name, resource attributes, headers of
// the exporter and sizes of batches follow the SDK's own OTEL_* variables.

import { ROOT_CONTEXT, type Span, SpanKind, SpanStatusCode, type Tracer, trace } from '@opentelemetry/api'
import { setGlobalErrorHandler, W3CTraceContextPropagator } from '@opentelemetry/core'
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-proto'
import { defaultResource, detectResources, envDetector, resourceFromAttributes } from '@opentelemetry/resources'
import { BasicTracerProvider, BatchSpanProcessor } from '@opentelemetry/sdk-trace-base'
import type { Logger } from 'pino'
import type { Generation, GenerationRequest, RequestSpan } from '../generation/generation.ts'
import type { RequestTracer } from '../generation/request-tracer.ts'
import type { TraceHeaders } from '../generation/trace-headers.ts'
import { requestAttributes, resultAttributes } from './span-attributes.ts'

/** As vLLM names it, so that searches over both servers find both. */
const SPAN_NAME = 'llm_request'
const SERVICE_NAME = 'lorikeet'
/** Where OTLP receivers listen; an endpoint without a path means them. */
const TRACES_PATH = '/v1/traces'

/** The exporter tries for many seconds; a server that ends does not wait for a collector that is gone. */
const SHUTDOWN_MS = 1500

export interface OtelTracerOptions {
  readonly endpoint: string
  readonly version: string
  readonly logger: Logger
  /** What is not sent this long after `shutdown` is lost. */
  readonly shutdownMs?: number
}

export class OtelTracer implements RequestTracer {
  readonly #provider: BasicTracerProvider
  readonly #tracer: Tracer
  readonly #shutdownMs: number
  readonly #logger: Logger
  readonly #propagator = new W3CTraceContextPropagator()

  constructor({ endpoint, version, logger, shutdownMs = SHUTDOWN_MS }: OtelTracerOptions) {
    this.#logger = logger
    this.#shutdownMs = shutdownMs
    setGlobalErrorHandler((error) => logger.warn({ err: error }, 'traces were not sent'))
    this.#provider = new BasicTracerProvider({
      resource: defaultResource()
        .merge(resourceFromAttributes({ 'service.name': SERVICE_NAME, 'service.version': version }))
        .merge(detectResources({ detectors: [envDetector] })),
      spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter({ url: tracesUrl(endpoint) }))],
    })
    this.#tracer = this.#provider.getTracer(SERVICE_NAME, version)
  }

  start(request: GenerationRequest): RequestSpan {
    const options = { kind: SpanKind.SERVER, startTime: request.arrivedAtMs, attributes: requestAttributes({ request }) }
    const span = this.#tracer.startSpan(SPAN_NAME, options, this.#parent(request.trace))
    return { traceparent: this.#traceparent(span), end: (generation) => endSpan(span, generation) }
  }

  async shutdown(): Promise<void> {
    const sent = this.#provider.shutdown().catch((error: unknown) => {
      this.#logger.warn({ err: error }, 'traces were not sent')
    })
    let timer: NodeJS.Timeout | undefined
    const timeout = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, this.#shutdownMs)
    })
    await Promise.race([sent, timeout])
    clearTimeout(timer)
  }

  #parent(headers: TraceHeaders | null) {
    if (headers === null) return ROOT_CONTEXT
    const getter = {
      get: (carrier: TraceHeaders, key: string) => (key === 'traceparent' ? carrier.traceparent : carrier.tracestate),
      keys: () => ['traceparent', 'tracestate'],
    }
    return this.#propagator.extract(ROOT_CONTEXT, headers, getter)
  }

  #traceparent(span: Span): string {
    const headers: Record<string, string> = {}
    this.#propagator.inject(trace.setSpan(ROOT_CONTEXT, span), headers, {
      set: (carrier, key, value) => {
        carrier[key] = value
      },
    })
    return headers['traceparent'] ?? ''
  }
}

function endSpan(span: Span, generation: Generation): void {
  const { choices } = generation
  span.setAttributes(resultAttributes(generation))
  const failure = choices.find((choice) => choice.failure !== null)?.failure
  if (failure !== undefined && failure !== null) {
    span.setAttribute('error.type', failure.code)
    span.setStatus({ code: SpanStatusCode.ERROR, message: failure.message })
  }
  span.end()
}

function tracesUrl(endpoint: string): string {
  const url = new URL(endpoint)
  return url.pathname === '/' ? new URL(TRACES_PATH, url).href : url.href
}
