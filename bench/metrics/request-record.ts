// What the client saw of one request. Times are seconds on one monotonic clock; the raw gaps are kept, nothing is averaged here.

/** `rejected`: the server was full or not ready (429, 503). `aborted`: cut short by the server or by the end of the run. */
export type Outcome = 'success' | 'failed' | 'rejected' | 'aborted'

export interface RequestRecord {
  readonly index: number
  /** The adapter asked for; null = the base model. */
  readonly adapter: string | null
  readonly outcome: Outcome
  /** When the schedule wanted it sent, from the start of the run. */
  readonly scheduledS: number
  /** When the client got round to it; later than `scheduledS` by the schedule lag. */
  readonly dispatchedS: number
  /** When it was sent; later than `dispatchedS` only under a cap on concurrency. */
  readonly startS: number
  /** Send to the first message with choices; null when there was none. */
  readonly ttftS: number | null
  /** Send to the first message with text, SGLang's TTFT; null when there was none. */
  readonly firstTextS: number | null
  /** Gaps between messages with choices. */
  readonly itlsS: readonly number[]
  /** Send to the last token message (completions) or the last data message (chat); for failures, to the failure. */
  readonly e2elS: number
  /** `usage.prompt_tokens`, else what was asked for. */
  readonly inputLen: number
  /** `usage.completion_tokens`, else counted as `outputSource` says. */
  readonly outputLen: number
  readonly outputSource: 'usage' | 'messages'
  /** Prompt tokens that the server took from its prefix cache; null when it does not tell. */
  readonly cachedTokens: number | null
  readonly finishReason: string | null
  /** 0 when no response came. */
  readonly httpStatus: number
  readonly error: string | null
  /** Kept only when asked. */
  readonly text: string | null
}
