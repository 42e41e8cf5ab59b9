// Every message between the server's threads and the engine thread, and nothing else. Plain data, transferable buffers.

import type { AdapterActivity, AdapterInfo, AdapterSource } from '../adapter/adapter-generation.ts'
import type { AdapterId, RequestId } from '../core/ids.ts'
import type { SamplingParams } from '../core/sampling-params.ts'
import type { WireError } from '../errors.ts'

// The server reads these of its messages; the store defines them.
export type { AdapterActivity, AdapterInfo, AdapterSource } from '../adapter/adapter-generation.ts'

// ---- server -> engine

export type EngineCommand =
  | { readonly type: 'add-request'; readonly request: NewRequest }
  | { readonly type: 'abort-requests'; readonly requestIds: readonly RequestId[] }
  | { readonly type: 'load-adapter'; readonly callId: number; readonly adapter: AdapterSource; readonly replace: boolean }
  | { readonly type: 'unload-adapter'; readonly callId: number; readonly name: string }
  | { readonly type: 'shutdown' }

export interface NewRequest {
  readonly requestId: RequestId
  readonly promptTokenIds: Int32Array
  /** Generation the request runs on from first to last token; null = base model. */
  readonly adapterId: AdapterId | null
  readonly sampling: SamplingParams
  /** Lower runs earlier; ties by arrival. */
  readonly priority: number
  /** Isolates prefix-cache entries; '' = shared. */
  readonly cacheSalt: string
  /** Epoch milliseconds at which the server received the request. */
  readonly arrivedAtMs: number
}

// ---- engine -> server

export type EngineEvent =
  | { readonly type: 'ready'; readonly model: ModelInfo }
  | { readonly type: 'loading'; readonly loadedBytes: number; readonly totalBytes: number }
  | {
      readonly type: 'step'
      readonly outputs: readonly RequestOutput[]
      readonly stats: EngineStats
      readonly timing: StepTiming
    }
  | { readonly type: 'reply'; readonly callId: number; readonly result: AdapterInfo | null }
  | { readonly type: 'failed-call'; readonly callId: number; readonly error: WireError }
  /** The whole list after any change, in load order, and what happened to weights since the last one. */
  | { readonly type: 'adapters'; readonly adapters: readonly AdapterInfo[]; readonly activity: readonly AdapterActivity[] }
  /** For the log: something is odd and served all the same. */
  | { readonly type: 'warning'; readonly message: string }
  | { readonly type: 'fatal'; readonly error: WireError }
  | { readonly type: 'stopped' }

export interface ModelInfo {
  readonly modelType: string
  readonly backend: string
  readonly dtype: string
  readonly vocabSize: number
  readonly maxModelLen: number
  readonly blockSize: number
  readonly numBlocks: number
  readonly maxNumSeqs: number
  readonly maxNumBatchedTokens: number
}

export type FinishReason = 'stop' | 'length' | 'abort' | 'error'

/** What one step did for one request. Every request ends with exactly one output whose `finish` is set. */
export interface RequestOutput {
  readonly requestId: RequestId
  /** New tokens in order; a stop token is included. */
  readonly tokenIds: readonly number[]
  /** One entry a new token when the request asked for logprobs, else null. */
  readonly logprobs: readonly TokenLogprobs[] | null
  /** Sent once, with the first output: one entry a prompt token after the first; null when not asked. */
  readonly promptLogprobs: readonly TokenLogprobs[] | null
  readonly finish: RequestFinish | null
}

export interface TokenLogprobs {
  readonly tokenId: number
  readonly logprob: number
  /** 1 = the most likely token. */
  readonly rank: number
  /** The most likely tokens, best first. */
  readonly topTokenIds: Int32Array
  readonly topLogprobs: Float32Array
}

export interface RequestFinish {
  readonly reason: FinishReason
  /** The stop token that ended it; null for EOS and the other reasons. */
  readonly stopTokenId: number | null
  readonly error: WireError | null
  readonly metrics: RequestMetrics
}

/** Epoch milliseconds, with fractions. */
export interface RequestMetrics {
  readonly arrivedAtMs: number
  /** Null when it never ran. */
  readonly firstScheduledAtMs: number | null
  readonly firstTokenAtMs: number | null
  readonly lastTokenAtMs: number | null
  readonly finishedAtMs: number
  /** Milliseconds before `firstScheduledAtMs` in which its adapter was not on the device. */
  readonly adapterWaitMs: number
  readonly numPromptTokens: number
  readonly numOutputTokens: number
  readonly numCachedTokens: number
  readonly numPreemptions: number
}

/** A snapshot of gauges and running totals, sent with every step and when the engine falls idle. */
export interface EngineStats {
  readonly numRunning: number
  readonly numWaiting: number
  /** Of those waiting, the ones that wait for an adapter. */
  readonly numWaitingForAdapter: number
  readonly numBlocks: number
  /** Blocks some request holds; cached but unreferenced blocks do not count. */
  readonly numUsedBlocks: number
  readonly numPreemptions: number
  readonly numPrefixQueryTokens: number
  readonly numPrefixHitTokens: number
  readonly numPromptTokens: number
  /** Part of `numPromptTokens` that came from the prefix cache. */
  readonly numCachedPromptTokens: number
  readonly numGenerationTokens: number
  readonly adapterLoads: number
  readonly adapterEvictions: number
  readonly adapterBytes: number
  readonly runningAdapters: readonly string[]
  readonly waitingAdapters: readonly string[]
  /** Waiting requests of each of `waitingAdapters`. */
  readonly numWaitingByAdapter: readonly number[]
}

/** Milliseconds by stage of one step; all zero where no forward pass ran. */
export interface StepTiming {
  readonly numTokens: number
  readonly numSeqs: number
  /** Distinct adapters, the base model not among them. */
  readonly numAdapters: number
  readonly scheduleMs: number
  readonly executeMs: number
  /** Part of `executeMs` inside native code. */
  readonly nativeMs: number
  readonly sampleMs: number
  readonly updateMs: number
  /** Times since the last token of each sequence that got another one. */
  readonly tokenGaps: readonly TokenGap[]
}

/** Sequences of one step mostly have their last token from the same step before it: equal gaps are sent once. */
export interface TokenGap {
  readonly gapMs: number
  readonly count: number
}
