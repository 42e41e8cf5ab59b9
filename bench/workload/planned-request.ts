/** One request of a run, ready to be sent: the body is serialised ahead of its time so that sending costs little. */
export interface PlannedRequest {
  readonly index: number
  /** When to send it, seconds from the start of the run. */
  readonly offsetS: number
  /** null = the base model. */
  readonly adapter: string | null
  readonly inputLen: number
  readonly outputLen: number
  /** Lengths were cut to fit the served context. */
  readonly clipped: boolean
  /** What the trace said, for those who write traces. */
  readonly traceKey: string | null
  readonly blockIds: readonly number[] | null
  /** JSON; empty when bodies were not asked for. */
  readonly body: string
}
