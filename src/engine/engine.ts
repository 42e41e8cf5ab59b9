// The loop of the server: drain commands, schedule, execute, update, publish. One writer: only the engine thread is in here.

import type { Backend } from '../backend/backend.ts'
import { NO_ADAPTER_SLOT, type RequestId } from '../core/ids.ts'
import { invariant } from '../core/invariant.ts'
import type { StepOutput, StepPlan } from '../core/step-plan.ts'
import { asLorikeetError, LorikeetError } from '../errors.ts'
import { BlockPool } from '../kv/block-pool.ts'
import { KvCacheManager } from '../kv/kv-cache-manager.ts'
import type { EngineAdapters } from './engine-adapters.ts'
import { ABORTED, type FinishCause, failed, finishOf, REACHED_LENGTH, refusalOf } from './finish.ts'
import type {
  AdapterInfo,
  EngineCommand,
  EngineEvent,
  EngineStats,
  NewRequest,
  RequestFinish,
  RequestOutput,
  StepTiming,
  TokenLogprobs,
} from './messages.ts'
import { EngineRequest } from './request.ts'
import { resolveAdapter } from './request-adapter.ts'
import { RowSampler, type SampledRow } from './row-sampler.ts'
import { Scheduler } from './scheduler.ts'
import { stopCauseOf } from './stop.ts'
import { TokenGaps } from './token-gaps.ts'

/** Failed steps in a row after which the backend is given up: one may be bad luck, three are a broken device. */
const MAX_CONSECUTIVE_FAILURES = 3

/** Size of the logits array that prompt scoring may add to one step; a vocabulary of 150k scores about 100 tokens a step. */
const SCORE_LOGITS_BYTES = 64 * 1024 * 1024

/** Under load adapters change state every step; their list is long and only a display, so it is sent this often at most. */
const ADAPTER_LIST_INTERVAL_MS = 100

const NO_STEP: StepTiming = {
  numTokens: 0,
  numSeqs: 0,
  numAdapters: 0,
  scheduleMs: 0,
  executeMs: 0,
  nativeMs: 0,
  sampleMs: 0,
  updateMs: 0,
  tokenGaps: [],
}

export interface EngineOptions {
  readonly backend: Backend
  readonly adapters: EngineAdapters
  readonly maxNumSeqs: number
  readonly maxNumBatchedTokens: number
  readonly maxModelLen: number
  readonly enablePrefixCaching: boolean
  /** The next command that has arrived, or null; called until null at the start of each step. */
  readonly receive: () => EngineCommand | null
  readonly send: (event: EngineEvent) => void
  /** Epoch milliseconds with fractions. */
  readonly clock: () => number
  /** Seeds of requests that bring none; safe integers. */
  readonly drawSeed: () => number
}

export class Engine {
  readonly #options: EngineOptions
  readonly #scheduler: Scheduler
  readonly #kv: KvCacheManager
  readonly #sampler: RowSampler
  readonly #requests = new Map<RequestId, EngineRequest>()
  #outputs: RequestOutput[] = []
  #numArrived = 0
  #numPromptTokens = 0
  #numCachedPromptTokens = 0
  #numGenerationTokens = 0
  readonly #tokenGaps = new TokenGaps()
  #numConsecutiveFailures = 0
  #hasAdapterChange = false
  #adaptersSentAtMs = 0
  #wasIdle = true
  #isShutDown = false

  constructor(options: EngineOptions) {
    const { backend, adapters, maxModelLen, maxNumBatchedTokens } = options
    this.#options = options
    this.#kv = new KvCacheManager(
      new BlockPool(backend.capacity.numBlocks, backend.capacity.blockSize),
      options.enablePrefixCaching,
    )
    const limits = {
      maxNumSeqs: Math.min(options.maxNumSeqs, maxNumBatchedTokens),
      maxNumBatchedTokens,
      maxModelLen,
      maxScoreRows: Math.max(1, Math.floor(SCORE_LOGITS_BYTES / (4 * backend.vocabSize))),
    }
    this.#scheduler = new Scheduler(limits, this.#kv, adapters)
    this.#sampler = new RowSampler(backend.vocabSize)
  }

  /** False while some request waits or runs. */
  get isIdle(): boolean {
    return this.#requests.size === 0
  }

  get isShutDown(): boolean {
    return this.#isShutDown
  }

  /** The adapter list changed: it is sent with the next step. */
  markAdaptersChanged(): void {
    this.#hasAdapterChange = true
  }

  /**
   * One turn; true when a forward pass ran, false when there was nothing to run. Backend failures end the requests of the step.
   * Rejects when the engine itself is broken: send `fatal` and stop.
   */
  async step(): Promise<boolean> {
    const { clock } = this.#options
    const numDrained = this.#drainCommands()
    const startedAt = clock()
    const plan = this.#scheduler.schedule(startedAt)
    for (const { request, error } of this.#scheduler.takeRejections()) this.#leave(request, failed(error))
    if (plan === null) {
      this.#publishIdle(numDrained)
      return false
    }
    const numAdapters = countAdapters(this.#scheduler.scheduled)
    const scheduledAt = clock()
    const output = await this.#tryExecute(plan)
    const executedAt = clock()
    const sampled = output === null ? [] : this.#sampler.sample(output, this.#scheduler.scheduled)
    const sampledAt = clock()
    if (output !== null) this.#update(sampled, sampledAt)
    const timing: StepTiming = {
      numTokens: plan.numTokens,
      numSeqs: plan.numSeqs,
      numAdapters,
      scheduleMs: scheduledAt - startedAt,
      executeMs: executedAt - scheduledAt,
      nativeMs: output === null ? 0 : this.#options.backend.lastNativeMs,
      sampleMs: sampledAt - executedAt,
      updateMs: clock() - sampledAt,
      tokenGaps: this.#tokenGaps.take(),
    }
    this.#publish(timing)
    this.#wasIdle = false
    return true
  }

  stats(): EngineStats {
    const scheduler = this.#scheduler
    const { running, waiting } = scheduler
    const { pool } = this.#kv
    const { counters } = this.#options.adapters
    const runningAdapters = new Set<string>()
    for (const request of running) if (request.adapter.name !== '') runningAdapters.add(request.adapter.name)
    return {
      numRunning: running.length,
      numWaiting: waiting.length,
      numWaitingForAdapter: scheduler.numWaitingForAdapter,
      numBlocks: pool.numBlocks,
      numUsedBlocks: pool.numReferenced,
      numPreemptions: scheduler.numPreemptions,
      numPrefixQueryTokens: scheduler.numPrefixQueryTokens,
      numPrefixHitTokens: scheduler.numPrefixHitTokens,
      numPromptTokens: this.#numPromptTokens,
      numCachedPromptTokens: this.#numCachedPromptTokens,
      numGenerationTokens: this.#numGenerationTokens,
      adapterLoads: counters.loads,
      adapterEvictions: counters.evictions,
      adapterBytes: counters.deviceBytes,
      runningAdapters: [...runningAdapters],
      waitingAdapters: [...waiting.numByAdapter.keys()],
      numWaitingByAdapter: [...waiting.numByAdapter.values()],
    }
  }

  /** Every resource is where its owner says. Cheap enough to run whenever the engine is idle. */
  checkIntegrity(): void {
    const { running, waiting } = this.#scheduler
    this.#scheduler.checkIntegrity()
    this.#options.adapters.checkIntegrity()
    invariant(running.length + waiting.length === this.#requests.size, 'a request is neither running nor waiting')
    if (this.isIdle) invariant(this.#kv.pool.numReferenced === 0, 'an idle engine holds blocks')
  }

  // ---- commands

  #drainCommands(): number {
    let numDrained = 0
    for (let command = this.#options.receive(); command !== null; command = this.#options.receive()) {
      this.#obey(command)
      numDrained++
    }
    return numDrained
  }

  #obey(command: EngineCommand): void {
    const { adapters } = this.#options
    switch (command.type) {
      case 'add-request':
        this.#add(this.#withCurrentAdapter(command.request))
        break
      case 'abort-requests':
        this.#abort(command.requestIds)
        break
      case 'load-adapter':
        this.#reply(command.callId, () => adapters.register(command.adapter, command.replace))
        break
      case 'unload-adapter':
        this.#reply(command.callId, async () => {
          adapters.unregister(command.name)
          return null
        })
        break
      case 'shutdown':
        this.#abort([...this.#requests.keys()])
        this.#isShutDown = true
    }
  }

  #add(newRequest: NewRequest): void {
    const { adapters, drawSeed } = this.#options
    try {
      invariant(!this.#requests.has(newRequest.requestId), `request id ${newRequest.requestId} is in use`)
      if (newRequest.promptTokenIds.length === 0) {
        throw new LorikeetError('FIELD_INVALID', { field: 'prompt', reason: 'must hold at least one token' })
      }
      const adapter = resolveAdapter(adapters, newRequest.adapterId, newRequest.promptTokenIds)
      const seed = newRequest.sampling.seed ?? drawSeed()
      const request = new EngineRequest(newRequest, adapter, this.#numArrived++, seed)
      const error = this.#scheduler.tryAdd(request)
      if (error !== null) throw error
      this.#requests.set(request.requestId, request)
      if (request.namedAdapterId !== null) adapters.addHolder(request.namedAdapterId)
    } catch (error) {
      this.#outputs.push(refusalOf(newRequest, asLorikeetError(error), this.#options.clock()))
    }
  }

  #withCurrentAdapter(request: NewRequest): NewRequest {
    if (request.adapterId === null) return request
    const current = this.#options.adapters.current(request.adapterId)
    return current === request.adapterId ? request : { ...request, adapterId: current }
  }

  /** Unknown ids are requests that ended while the abort was on its way. */
  #abort(requestIds: readonly RequestId[]): void {
    for (const requestId of requestIds) {
      const request = this.#requests.get(requestId)
      if (request !== undefined) this.#end(request, ABORTED)
    }
  }

  /** Answers a call when its work is done; the adapter list goes first, so that the caller finds what it loaded. */
  #reply(callId: number, work: () => Promise<AdapterInfo | null>): void {
    const { send } = this.#options
    const done = (event: EngineEvent): void => {
      this.#publishAdapters()
      send(event)
    }
    work().then(
      (result) => {
        this.#hasAdapterChange = true
        done({ type: 'reply', callId, result })
      },
      (error: unknown) => done({ type: 'failed-call', callId, error: asLorikeetError(error).toWire() }),
    )
  }

  // ---- one step

  /** Null after a failure, with the requests of the step ended: what they hold in the cache is undefined. */
  async #tryExecute(plan: StepPlan): Promise<StepOutput | null> {
    try {
      const output = await this.#options.backend.execute(plan)
      this.#numConsecutiveFailures = 0
      return output
    } catch (thrown) {
      const error = thrown instanceof LorikeetError ? thrown : this.#backendError(thrown)
      for (const request of [...this.#scheduler.scheduled]) this.#end(request, failed(error))
      if (++this.#numConsecutiveFailures >= MAX_CONSECUTIVE_FAILURES) {
        this.#publish(NO_STEP)
        throw error
      }
      return null
    }
  }

  #update(sampled: readonly SampledRow[], nowMs: number): void {
    for (const { request, tokenId, logprobs } of sampled) {
      if (request.isSampled && tokenId === null) {
        // Not offered to the prefix cache: the keys behind such logits are suspect.
        this.#end(request, failed(this.#backendError('the logits hold no number; check the adapter and the dtype')))
        continue
      }
      request.numComputedTokens = request.nextPosition + request.numScheduledTokens
      this.#kv.commit(request.kv, request.tokens, request.numComputedTokens)
      if (tokenId !== null) this.#append(request, tokenId, logprobs, nowMs)
      else if (request.numPendingTokens === 0) this.#endScoring(request)
    }
  }

  #append(request: EngineRequest, tokenId: number, logprobs: TokenLogprobs | null, nowMs: number): void {
    request.appendToken(tokenId)
    if (request.lastTokenAtMs === null) {
      request.firstTokenAtMs = nowMs
      this.#countPrompt(request)
    } else this.#tokenGaps.add(nowMs - request.lastTokenAtMs)
    request.lastTokenAtMs = nowMs
    this.#numGenerationTokens++
    const stop = stopCauseOf(request, tokenId, this.#options.maxModelLen)
    this.#emit(request, [tokenId], logprobs === null ? null : [logprobs], stop === null ? null : { ...stop, error: null })
  }

  #endScoring(request: EngineRequest): void {
    this.#countPrompt(request)
    this.#end(request, REACHED_LENGTH)
  }

  #countPrompt({ numPromptTokens, numCachedTokens }: EngineRequest): void {
    this.#numPromptTokens += numPromptTokens
    this.#numCachedPromptTokens += numCachedTokens
  }

  // ---- endings

  #end(request: EngineRequest, cause: FinishCause): void {
    this.#emit(request, [], request.sampling.logprobs === null ? null : [], cause)
  }

  /** The one place where a request's output is made; a cause takes the request out. */
  #emit(request: EngineRequest, tokenIds: number[], logprobs: TokenLogprobs[] | null, cause: FinishCause | null): void {
    const isFirst = !request.hasSentOutput
    request.hasSentOutput = true
    if (cause !== null) this.#scheduler.remove(request)
    const finish = cause === null ? null : this.#close(request, cause)
    const promptLogprobs = isFirst && request.numUnscoredTokens <= 0 ? request.promptLogprobs : null
    this.#outputs.push({ requestId: request.requestId, tokenIds, logprobs, promptLogprobs, finish })
  }

  /** Ends a request the scheduler has already let go. */
  #leave(request: EngineRequest, cause: FinishCause): void {
    const finish = this.#close(request, cause)
    this.#outputs.push({ requestId: request.requestId, tokenIds: [], logprobs: null, promptLogprobs: null, finish })
  }

  #close(request: EngineRequest, cause: FinishCause): RequestFinish {
    this.#requests.delete(request.requestId)
    if (request.namedAdapterId !== null) this.#options.adapters.dropHolder(request.namedAdapterId)
    return finishOf(request, cause, this.#options.clock())
  }

  // ---- publishing

  #publish(timing: StepTiming): void {
    if (this.#options.clock() - this.#adaptersSentAtMs >= ADAPTER_LIST_INTERVAL_MS) this.#publishAdapters()
    const outputs = this.#outputs
    this.#outputs = []
    this.#options.send({ type: 'step', outputs, stats: this.stats(), timing })
  }

  /** Without a forward pass there is news only when something arrived, ended, or the engine just fell idle. */
  #publishIdle(numDrained: number): void {
    const fellIdle = this.isIdle && !this.#wasIdle
    this.#wasIdle = this.isIdle
    if (fellIdle) this.checkIntegrity()
    if (fellIdle || numDrained > 0 || this.#outputs.length > 0) this.#publish(NO_STEP)
    // Whatever the interval: the loop may sleep now, and what it leaves behind must be true.
    this.#publishAdapters()
  }

  #publishAdapters(): void {
    if (!this.#hasAdapterChange) return
    this.#hasAdapterChange = false
    this.#adaptersSentAtMs = this.#options.clock()
    const { adapters, send } = this.#options
    send({ type: 'adapters', adapters: adapters.list(), activity: adapters.takeActivity() })
  }

  #backendError(thrown: unknown): LorikeetError {
    const detail = thrown instanceof Error ? thrown.message : String(thrown)
    return new LorikeetError('BACKEND_FAILED', { backend: this.#options.backend.name, detail }, { cause: thrown })
  }
}

/** Distinct adapters among requests that are in the order of their adapters. */
function countAdapters(scheduled: readonly EngineRequest[]): number {
  let numAdapters = 0
  let last: number = NO_ADAPTER_SLOT
  for (const { adapterSlot } of scheduled) {
    if (adapterSlot !== last && adapterSlot !== NO_ADAPTER_SLOT) numAdapters++
    last = adapterSlot
  }
  return numAdapters
}
