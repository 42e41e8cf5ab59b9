// One request inside the engine. Only the engine thread touches it; everything derivable is a getter.

import type { AdapterId, RequestId } from '../core/ids.ts'
import { NO_ADAPTER_SLOT } from '../core/ids.ts'
import { invariant } from '../core/invariant.ts'
import type { PromptCoupling } from '../core/prompt-coupling.ts'
import type { SamplingParams } from '../core/sampling-params.ts'
import { virtualTokenId } from '../core/step-plan.ts'
import { KvSequence } from '../kv/kv-cache-manager.ts'
import type { NewRequest, TokenLogprobs } from './messages.ts'

export type RequestStatus = 'waiting' | 'running' | 'preempted' | 'finished'

const LEGAL_MOVES: Readonly<Record<RequestStatus, readonly RequestStatus[]>> = {
  waiting: ['running', 'finished'],
  running: ['preempted', 'finished'],
  preempted: ['running', 'finished'],
  finished: [],
}

/** What the adapter of a request means for it; resolved once, when the request arrives. */
export interface RequestAdapter {
  /** Generation whose weights must be on the device; null = none needed (base, or never activated). */
  readonly id: AdapterId | null
  /** Name for metrics; '' = base model. */
  readonly name: string
  /** First position the adapter acts on. */
  readonly activationStart: number
  readonly kvDigest: string
  /** Leading positions of the sequence that are the adapter's own. */
  readonly numVirtualTokens: number
  /** Of those, the first ones that no row computes: the step that starts behind them writes their keys and values. */
  readonly numGivenTokens: number
  /** Index of a token in the sequence less its position. */
  readonly positionOffset: number
  readonly promptCoupling: PromptCoupling
}

export class EngineRequest {
  readonly requestId: RequestId
  readonly sampling: SamplingParams
  readonly priority: number
  readonly arrivedAtMs: number
  /** Order of arrival at the engine; ties of `priority` are broken by it. */
  readonly arrivalIndex: number
  /** Generation the client named, held until the request ends even where its weights are not needed. */
  readonly namedAdapterId: AdapterId | null
  readonly adapter: RequestAdapter
  /** Seed of every random number of this request; with the output index it fixes each of them. */
  readonly seed: number
  /** As the client counts: without virtual tokens. */
  readonly numPromptTokens: number
  /** Position of the first prompt token: virtual tokens come before it. */
  readonly promptStart: number
  readonly kv: KvSequence

  /** Virtual tokens (negative ids), prompt, output; the first `numTokens` are valid. */
  tokens: Int32Array
  numTokens: number
  /** Tokens whose keys and values are in the cache. */
  numComputedTokens = 0
  /** Tokens of the step being run; 0 = not in it. */
  numScheduledTokens = 0
  /** Device index while running, NO_ADAPTER_SLOT without an adapter. */
  adapterSlot: number = NO_ADAPTER_SLOT

  /** First of this step's logit rows; first come `numScoreRows` prompt rows, then one to sample from if `isSampled`. */
  firstLogitRow = 0
  numScoreRows = 0
  isSampled = false

  /** Scores of prompt tokens 1, 2, …; null = not asked for. */
  promptLogprobs: TokenLogprobs[] | null
  /** Uses of each output token; kept only where a penalty asks. */
  readonly outputCounts: Map<number, number> | null
  /** Distinct prompt tokens; kept only where the repetition penalty asks. */
  readonly promptTokenSet: ReadonlySet<number> | null

  hasSentOutput = false
  firstScheduledAtMs: number | null = null
  firstTokenAtMs: number | null = null
  lastTokenAtMs: number | null = null
  numCachedTokens = 0
  numPreemptions = 0
  /** Since when it has waited for its adapter; null while it does not. */
  adapterMissingSinceMs: number | null = null
  /** Wait for its adapter before it was first scheduled. */
  adapterWaitMs = 0
  /** Later adapter requests admitted while this one waited for device room. */
  numTimesPassed = 0

  #status: RequestStatus = 'waiting'

  constructor(request: NewRequest, adapter: RequestAdapter, arrivalIndex: number, seed: number) {
    const { sampling, promptTokenIds } = request
    this.requestId = request.requestId
    this.sampling = sampling
    this.priority = request.priority
    this.arrivedAtMs = request.arrivedAtMs
    this.arrivalIndex = arrivalIndex
    this.namedAdapterId = request.adapterId
    this.adapter = adapter
    this.seed = seed
    this.promptStart = adapter.numVirtualTokens
    this.tokens = withVirtualTokens(promptTokenIds, adapter.numVirtualTokens)
    this.numTokens = this.tokens.length
    this.numPromptTokens = promptTokenIds.length
    this.kv = new KvSequence({ ...adapter, numPromptTokens: promptTokenIds.length, cacheSalt: request.cacheSalt })
    this.promptLogprobs = sampling.promptLogprobs === null ? null : []
    const hasRepetition = sampling.repetitionPenalty !== 1
    const countsOutput = hasRepetition || sampling.presencePenalty !== 0 || sampling.frequencyPenalty !== 0
    this.outputCounts = countsOutput ? new Map() : null
    this.promptTokenSet = hasRepetition ? new Set(promptTokenIds) : null
  }

  get status(): RequestStatus {
    return this.#status
  }

  get numOutputTokens(): number {
    return this.numTokens - this.promptStart - this.numPromptTokens
  }

  /** Position of the next row: behind what is computed, and behind what needs no computing. */
  get nextPosition(): number {
    return Math.max(this.numComputedTokens, this.adapter.numGivenTokens)
  }

  /** Known tokens not yet computed, those that need none left out; 1 while decoding. */
  get numPendingTokens(): number {
    return this.numTokens - this.nextPosition
  }

  /** Pending tokens that one step must hold together. */
  get numCoupledTokens(): number {
    if (this.adapter.promptCoupling !== 'whole') return 0
    return Math.max(0, this.promptStart + this.numPromptTokens - this.nextPosition)
  }

  /** Prompt positions still to be scored; position p scores token p + 1. */
  get numUnscoredTokens(): number {
    return this.promptLogprobs === null ? 0 : this.numPromptTokens - 1 - this.promptLogprobs.length
  }

  /** The only way a status changes. */
  moveTo(status: RequestStatus): void {
    invariant(LEGAL_MOVES[this.#status].includes(status), `request ${this.requestId}: ${this.#status} -> ${status}`)
    this.#status = status
  }

  appendToken(tokenId: number): void {
    if (this.numTokens === this.tokens.length) {
      const grown = new Int32Array(Math.max(16, this.tokens.length * 2))
      grown.set(this.tokens)
      this.tokens = grown
    }
    this.tokens[this.numTokens++] = tokenId
    this.outputCounts?.set(tokenId, (this.outputCounts.get(tokenId) ?? 0) + 1)
  }
}

function withVirtualTokens(promptTokenIds: Int32Array, numVirtualTokens: number): Int32Array {
  if (numVirtualTokens === 0) return promptTokenIds
  const tokens = new Int32Array(numVirtualTokens + promptTokenIds.length)
  for (let i = 0; i < numVirtualTokens; i++) tokens[i] = virtualTokenId(i)
  tokens.set(promptTokenIds, numVirtualTokens)
  return tokens
}

/** Running order and queue order: lower priority value first, then arrival. */
export function compareRequests(a: EngineRequest, b: EngineRequest): number {
  return a.priority - b.priority || a.arrivalIndex - b.arrivalIndex
}
