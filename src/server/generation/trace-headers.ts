/** W3C Trace Context as it came with a call. */
export interface TraceHeaders {
  readonly traceparent: string
  /** '' = none. */
  readonly tracestate: string
}

/** Null without a `traceparent`. Whether it is well formed is the tracer's business. */
export function traceHeaders(traceparent: unknown, tracestate: unknown): TraceHeaders | null {
  if (typeof traceparent !== 'string') return null
  return { traceparent, tracestate: typeof tracestate === 'string' ? tracestate : '' }
}
