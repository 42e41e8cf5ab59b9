// All calls in flight: admission, draining, and one record of each at its end.

import { LorikeetError } from '../../errors.ts'
import type { EnginePort } from './engine-port.ts'
import { Generation, type GenerationListener, type GenerationRequest } from './generation.ts'

export interface GenerationObserver {
  /** Every sequence of the call has ended in the engine. */
  onEnded(generation: Generation): void
}

export class Generations {
  readonly #engine: EnginePort
  readonly #maxQueue: number
  readonly #observers: GenerationObserver[]
  readonly #active = new Set<Generation>()
  readonly #idleWaiters: (() => void)[] = []
  #isDraining = false

  constructor(engine: EnginePort, maxQueue: number, observer: GenerationObserver) {
    this.#engine = engine
    this.#maxQueue = maxQueue
    this.#observers = [observer]
  }

  observe(observer: GenerationObserver): void {
    this.#observers.push(observer)
  }

  get numActive(): number {
    return this.#active.size
  }

  /** Throws ENGINE_STARTING, DRAINING or ENGINE_DEAD unless requests are taken. */
  assertReady(): void {
    if (this.#isDraining || this.#engine.state === 'draining') throw new LorikeetError('DRAINING')
    if (this.#engine.state === 'starting') throw new LorikeetError('ENGINE_STARTING')
    if (this.#engine.state === 'dead') throw new LorikeetError('ENGINE_DEAD', { reason: 'see the server log' })
  }

  /** Starts a call. Throws QUEUE_FULL, or what `assertReady` throws. */
  start(request: GenerationRequest, listener: GenerationListener): Generation {
    this.assertReady()
    const numWaiting = this.#numWaiting()
    if (numWaiting >= this.#maxQueue) throw new LorikeetError('QUEUE_FULL', { numWaiting })
    const generation = new Generation(this.#engine, request, listener)
    this.#active.add(generation)
    generation.onEnded = () => this.#end(generation)
    generation.start()
    return generation
  }

  /** Refuses new calls and resolves when none is left; after `timeoutMs` the rest is aborted. */
  async drain(timeoutMs: number): Promise<void> {
    this.#isDraining = true
    if (this.#active.size === 0) return
    const timer = setTimeout(() => {
      for (const generation of this.#active) this.#engine.abort(generation.choices.map((choice) => choice.requestId))
    }, timeoutMs)
    await new Promise<void>((resolve) => this.#idleWaiters.push(resolve))
    clearTimeout(timer)
  }

  /** The engine's own count lags by a step, so a burst would slip through it: what is in flight and cannot run must wait. */
  #numWaiting(): number {
    let numRunning = 0
    for (const generation of this.#active) numRunning += generation.numRunning
    return Math.max(0, numRunning - this.#engine.model.maxNumSeqs)
  }

  #end(generation: Generation): void {
    if (!this.#active.delete(generation)) return
    for (const observer of this.#observers) observer.onEnded(generation)
    if (this.#active.size === 0) for (const resolve of this.#idleWaiters.splice(0)) resolve()
  }
}
