// Decides what one step computes. There is no prefill phase: every request's computed tokens catch up with its tokens.
//
//   running   decodes, one token each, then the unfinished prompts share what is left of the token budget
//   waiting   by priority and arrival, while budget, sequences and blocks last
//
// Blocks for all known tokens are taken at admission, so only decodes ever run out, and a prompt is never half admitted.

import { contextLengthExceeded } from '../core/context-length.ts'
import { NO_ADAPTER_SLOT } from '../core/ids.ts'
import { at, invariant } from '../core/invariant.ts'
import type { StepPlan } from '../core/step-plan.ts'
import { createStepPlan } from '../core/step-plan.ts'
import { LorikeetError } from '../errors.ts'
import type { KvCacheManager } from '../kv/kv-cache-manager.ts'
import { AdapterAdmission } from './adapter-admission.ts'
import type { EngineAdapters } from './engine-adapters.ts'
import { orderByAdapter, writeStepPlan } from './plan-writer.ts'
import type { EngineRequest } from './request.ts'
import { compareRequests } from './request.ts'
import { RequestQueue } from './request-queue.ts'
import { VirtualPrefixes } from './virtual-prefix.ts'

/**
 * Later adapter requests that may be admitted past one that waits for device room. After that no other adapter is admitted
 * until it is: pins drain, an adapter can be evicted. Large enough that a short wait costs no throughput.
 */
export const MAX_TIMES_PASSED = 32

/** Share of the pool kept free at admission while others run, so that a new prompt is not preempted by the next few decodes. */
const ADMISSION_WATERMARK = 0.01

export interface SchedulerLimits {
  readonly maxNumSeqs: number
  readonly maxNumBatchedTokens: number
  readonly maxModelLen: number
  /** Prompt rows scored in one step; bounds the logits array of requests with prompt logprobs. */
  readonly maxScoreRows: number
}

/** A request that can never run, for the engine to finish. */
export interface Rejection {
  readonly request: EngineRequest
  readonly error: LorikeetError
}

export class Scheduler {
  /** In the order of `compareRequests`. */
  readonly running: EngineRequest[] = []
  readonly waiting = new RequestQueue()
  /** Requests of the last plan, in its sequence order. */
  readonly scheduled: EngineRequest[] = []
  readonly plan: StepPlan
  numPreemptions = 0
  numPrefixQueryTokens = 0
  numPrefixHitTokens = 0

  readonly #limits: SchedulerLimits
  readonly #kv: KvCacheManager
  readonly #adapters: EngineAdapters
  readonly #adapterAdmission: AdapterAdmission
  readonly #virtualPrefixes: VirtualPrefixes
  #rejections: Rejection[] = []
  #tokenBudget = 0
  #scoreRowBudget = 0
  #hasPreempted = false

  constructor(limits: SchedulerLimits, kv: KvCacheManager, adapters: EngineAdapters) {
    invariant(limits.maxNumSeqs <= limits.maxNumBatchedTokens, 'a step must hold one token of every running sequence')
    this.#limits = limits
    this.#kv = kv
    this.#adapters = adapters
    this.#adapterAdmission = new AdapterAdmission(adapters)
    this.#virtualPrefixes = new VirtualPrefixes(kv)
    this.plan = createStepPlan({ ...limits, maxBlocksPerSeq: kv.numBlocksFor(limits.maxModelLen) })
  }

  /** Of those waiting, how many were last found without their adapter. */
  get numWaitingForAdapter(): number {
    return this.#adapterAdmission.numWaiting
  }

  /** Queues a new request; the error when no step could ever hold it. */
  tryAdd(request: EngineRequest): LorikeetError | null {
    const { maxModelLen } = this.#limits
    const { numTokens, numPromptTokens: promptTokens, promptStart: virtualTokens } = request
    const { maxTokens } = request.sampling
    if (numTokens > maxModelLen) return contextLengthExceeded({ maxModelLen, promptTokens, maxTokens, virtualTokens })
    // The last sampled token is never computed, so it needs no block.
    const numKvTokens = Math.min(numTokens + Math.max(0, maxTokens - 1), maxModelLen)
    const needBlocks = this.#kv.numBlocksFor(numKvTokens)
    const haveBlocks = this.#kv.pool.numBlocks
    if (needBlocks > haveBlocks) return new LorikeetError('REQUEST_TOO_LARGE', { needBlocks, haveBlocks })
    // Decodes come first in every step; a prompt that must fit beside them would else wait for as long as they run.
    const { maxNumBatchedTokens, maxNumSeqs, maxScoreRows } = this.#limits
    const maxScored = request.promptLogprobs === null ? maxNumBatchedTokens : maxScoreRows
    const maxCoupledTokens = Math.min(maxNumBatchedTokens - maxNumSeqs, maxScored)
    if (request.numCoupledTokens > maxCoupledTokens) {
      return new LorikeetError('ADAPTER_PROMPT_TOO_LONG', { promptTokens, maxTokens: maxCoupledTokens })
    }
    this.waiting.add(request)
    return null
  }

  /** Fills the plan of the next step; null when nothing can run now. Synchronous, and reads no clock. */
  schedule(nowMs: number): StepPlan | null {
    for (const request of this.scheduled) request.numScheduledTokens = 0
    this.scheduled.length = 0
    this.#tokenBudget = this.#limits.maxNumBatchedTokens
    this.#scoreRowBudget = this.#limits.maxScoreRows
    this.#hasPreempted = false
    this.#scheduleDecodes()
    this.#schedulePrefills()
    if (!this.#hasPreempted) this.#admitWaiting(nowMs)
    if (this.scheduled.length === 0) return null
    orderByAdapter(this.scheduled)
    writeStepPlan(this.plan, this.scheduled, this.#kv.pool.blockSize)
    return this.plan
  }

  /** Requests found unservable since the last call. */
  takeRejections(): readonly Rejection[] {
    const rejections = this.#rejections
    if (rejections.length > 0) this.#rejections = []
    return rejections
  }

  /** Takes a request out for good, wherever it is: blocks go home, its adapter is unpinned. */
  remove(request: EngineRequest): void {
    if (request.status === 'running') {
      this.running.splice(this.#runningIndexOf(request), 1)
      this.#giveBack(request)
    } else {
      this.waiting.remove(request)
      this.#adapterAdmission.mark(request, false)
    }
    request.moveTo('finished')
  }

  checkIntegrity(): void {
    this.#kv.checkIntegrity()
    this.waiting.checkIntegrity()
    this.#virtualPrefixes.checkIntegrity(this.running)
    invariant(this.running.length <= this.#limits.maxNumSeqs, `${this.running.length} sequences run`)
    for (const [index, request] of this.running.entries()) {
      invariant(request.status === 'running', `request ${request.requestId} runs as ${request.status}`)
      invariant(index === 0 || compareRequests(at(this.running, index - 1), request) < 0, 'running out of order')
      invariant(request.numComputedTokens < request.numTokens, `request ${request.requestId} has nothing left to compute`)
      const isPinned = request.adapterSlot !== NO_ADAPTER_SLOT
      invariant(isPinned === (request.adapter.id !== null), `request ${request.requestId} runs without its adapter`)
    }
    let numTokens = 0
    for (const request of this.scheduled) numTokens += request.numScheduledTokens
    invariant(numTokens <= this.#limits.maxNumBatchedTokens, `${numTokens} tokens scheduled`)
    for (const request of this.waiting) {
      invariant(request.status === 'waiting' || request.status === 'preempted', `${request.status} request in the queue`)
      invariant(request.kv.numBlocks === 0 && request.adapterSlot === NO_ADAPTER_SLOT, 'a waiting request holds resources')
    }
  }

  #scheduleDecodes(): void {
    for (let i = 0; i < this.running.length; i++) {
      const request = at(this.running, i)
      if (request.numPendingTokens !== 1) continue
      // The newest, least urgent request gives way; none before `i` can be hit, so nothing scheduled is undone.
      while (request.status === 'running' && !this.#kv.tryGrow(request.kv, request.numTokens)) {
        this.#preempt(at(this.running, this.running.length - 1))
      }
      if (request.status === 'running') this.#place(request)
    }
  }

  #schedulePrefills(): void {
    for (let i = 0; i < this.running.length && this.#tokenBudget > 0; i++) {
      const request = at(this.running, i)
      if (request.numPendingTokens > 1) this.#place(request)
    }
  }

  #admitWaiting(nowMs: number): void {
    const admission = this.#adapterAdmission
    admission.beginStep(nowMs)
    this.#virtualPrefixes.refresh()
    let passed: EngineRequest | null = null
    let index = 0
    while (index < this.waiting.length && this.#tokenBudget > 0 && this.running.length < this.#limits.maxNumSeqs) {
      const request = this.waiting.at(index)
      const { id } = request.adapter
      if (this.#virtualPrefixes.mustWait(request)) {
        index++
        continue
      }
      const mayBeBarred = id !== null && passed !== null && passed.numTimesPassed >= MAX_TIMES_PASSED
      const isBarred = mayBeBarred && !admission.isCopying(request)
      const isResident = !isBarred && admission.tryAcquire(request, this.scheduled.length === 0)
      admission.mark(request, !isResident)
      if (!isResident) {
        const failure = id === null ? null : this.#adapters.failure(id)
        if (failure !== null) this.#reject(index, failure)
        else if (!isBarred && passed === null && admission.waitsForRoom(request)) passed = request
        if (failure === null) index++
        continue
      }
      if (!this.#tryAllocate(request)) {
        this.#giveBack(request)
        return
      }
      this.#start(index, nowMs)
      if (id !== null && passed !== null) passed.numTimesPassed++
    }
  }

  #tryAllocate(request: EngineRequest): boolean {
    // Logits of prompt tokens cannot come from the cache; those of virtual tokens nobody asks for.
    const numReusable = request.numUnscoredTokens <= 0 ? request.numTokens : request.promptStart + 1
    request.numComputedTokens = this.#kv.attachPrefix(request.kv, request.tokens, numReusable)
    const { pool } = this.#kv
    const numNewBlocks = this.#kv.numBlocksFor(request.numTokens) - request.kv.numBlocks
    const reserve = this.running.length > 0 ? Math.ceil(pool.numBlocks * ADMISSION_WATERMARK) : 0
    return this.#kv.canAllocate(numNewBlocks + reserve) && this.#kv.tryGrow(request.kv, request.numTokens)
  }

  #start(waitingIndex: number, nowMs: number): void {
    const request = this.waiting.removeAt(waitingIndex)
    request.moveTo('running')
    this.running.splice(this.#runningIndexOf(request), 0, request)
    if (request.firstScheduledAtMs === null) {
      request.firstScheduledAtMs = nowMs
      request.numCachedTokens = Math.max(0, request.numComputedTokens - request.promptStart)
      this.numPrefixQueryTokens += request.numPromptTokens
      this.numPrefixHitTokens += request.numCachedTokens
    }
    this.#virtualPrefixes.noteAdmitted(request)
    this.#place(request)
  }

  /** Gives a running request its share of this step; none when the budgets are spent. */
  #place(request: EngineRequest): void {
    let numTokens = Math.min(request.numPendingTokens, this.#tokenBudget)
    if (request.numUnscoredTokens > 0) numTokens = Math.min(numTokens, this.#scoreRowBudget)
    if (numTokens === 0 || numTokens < request.numCoupledTokens) return
    if (request.numUnscoredTokens > 0) this.#scoreRowBudget -= numTokens
    request.numScheduledTokens = numTokens
    this.#tokenBudget -= numTokens
    this.scheduled.push(request)
  }

  #preempt(request: EngineRequest): void {
    invariant(this.running.length > 1, 'a request that fits the pool alone ran out of blocks alone')
    this.running.splice(this.#runningIndexOf(request), 1)
    this.#giveBack(request)
    request.moveTo('preempted')
    request.numPreemptions++
    this.numPreemptions++
    this.#hasPreempted = true
    this.waiting.add(request)
  }

  #giveBack(request: EngineRequest): void {
    this.#kv.free(request.kv)
    request.numComputedTokens = 0
    request.numScheduledTokens = 0
    if (request.adapter.id !== null) this.#adapters.release(request.adapter.id)
    request.adapterSlot = NO_ADAPTER_SLOT
  }

  #reject(waitingIndex: number, error: LorikeetError): void {
    this.#rejections.push({ request: this.waiting.at(waitingIndex), error })
    const request = this.waiting.removeAt(waitingIndex)
    this.#adapterAdmission.mark(request, false)
    request.moveTo('finished')
  }

  #runningIndexOf(request: EngineRequest): number {
    let low = 0
    let high = this.running.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (compareRequests(at(this.running, middle), request) < 0) low = middle + 1
      else high = middle
    }
    return low
  }
}
