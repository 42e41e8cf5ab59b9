import type { GenerationRequest, RequestSpan } from './generation.ts'

/** Traces of requests; the implementation is loaded only where they are sent. */
export interface RequestTracer {
  /** Begins the span of a call that was read and found good. */
  start(request: GenerationRequest): RequestSpan
  /** Sends what is left, for a moment at most. Never rejects. */
  shutdown(): Promise<void>
}
