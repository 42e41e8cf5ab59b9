// What the families are told. Plain data: this folder knows neither engine nor server.

/** Gauges and running totals of the engine, read at every scrape. */
export interface EngineSnapshot {
  readonly numRunning: number
  readonly numWaiting: number
  readonly numWaitingForAdapter: number
  readonly numBlocks: number
  readonly numUsedBlocks: number
  readonly numPreemptions: number
  readonly numPrefixQueryTokens: number
  readonly numPrefixHitTokens: number
  readonly numPromptTokens: number
  readonly numCachedPromptTokens: number
  readonly numGenerationTokens: number
  readonly runningAdapters: readonly string[]
  readonly waitingAdapters: readonly string[]
  /** Requests of each of `waitingAdapters`. */
  readonly numWaitingByAdapter: readonly number[]
}

/** One adapter as the engine lists it. */
export interface ListedAdapter {
  readonly name: string
  readonly state: 'registered' | 'loaded' | 'active' | 'pinned'
  /** Weights in host memory now. */
  readonly hostBytes: number
  /** Weights on the device now. */
  readonly deviceBytes: number
  /** Being read from disk once more. */
  readonly isLoading: boolean
}

export interface AdapterSource {
  /** In load order. */
  readonly list: () => readonly ListedAdapter[]
  readonly isListed: (name: string) => boolean
  /** Adapters being loaded that are not listed yet. */
  readonly numLoading: () => number
}

export type AdapterTier = 'host' | 'device'

/** Something that happened to an adapter's weights. */
export interface AdapterActivity {
  readonly name: string
  readonly tier: AdapterTier
  /** `load` into the tier, `eviction` out of it to make room. */
  readonly type: 'load' | 'failed-load' | 'eviction'
  /** Milliseconds it took; 0 for evictions. */
  readonly durationMs: number
}

export const FINISH_REASONS = ['stop', 'length', 'abort', 'error', 'repetition'] as const
export type FinishReason = (typeof FINISH_REASONS)[number]

/** Times of one sequence in epoch milliseconds; null = it did not come to that. */
export interface SequenceTimes {
  readonly arrivedAtMs: number
  readonly firstScheduledAtMs: number | null
  readonly firstTokenAtMs: number | null
  readonly lastTokenAtMs: number | null
  readonly finishedAtMs: number
  /** Part of the wait for the first step in which the adapter was missing. */
  readonly adapterWaitMs: number
  readonly numPromptTokens: number
  readonly numOutputTokens: number
  readonly numCachedTokens: number
}

export interface SequenceRecord {
  readonly reason: FinishReason
  readonly times: SequenceTimes
  /** Limit on output tokens that it ran with. */
  readonly maxTokens: number
}

/** One prompt with its samples, ended. */
export interface PromptRecord {
  /** Null = base model. */
  readonly adapter: string | null
  readonly sequences: readonly SequenceRecord[]
}

/** Equal gaps between the tokens of one sequence: sequences of one step mostly share theirs. */
export interface TokenGap {
  readonly gapMs: number
  readonly count: number
}

export interface StepRecord {
  readonly numTokens: number
  /** Distinct adapters, the base model not among them. */
  readonly numAdapters: number
  readonly scheduleMs: number
  readonly executeMs: number
  /** Part of `executeMs` inside native code. */
  readonly nativeMs: number
  readonly sampleMs: number
  readonly updateMs: number
  readonly tokenGaps: readonly TokenGap[]
}

export type RejectReason = 'queue_full' | 'draining' | 'unavailable' | 'auth'

export interface HttpRecord {
  /** Route template, never the path itself. */
  readonly handler: string
  readonly method: string
  readonly statusCode: number
  readonly durationS: number
  readonly requestBytes: number
  readonly responseBytes: number
}
