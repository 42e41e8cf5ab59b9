// All calls in flight: admission, draining, and one record of each at its end.

import { LorikeetError } from '../../errors.ts'
import type { EnginePort } from './engine-port.ts'
import { Generation, type GenerationListener, type GenerationRequest } from './generation.ts'
import type { RequestTracer } from './request-tracer.ts'

export interface GenerationObserver {
  /** Every sequence of the call has ended in the engine. */
  onEnded(generation: Generation): void
  /** A call was turned away before it began. */
  onRefused?(error: LorikeetError): void
}

export class Generations {
  readonly #engine: EnginePort
  readonly #maxQueue: number
  readonly #observers: GenerationObserver[]
  readonly #tracer: RequestTracer | null
  readonly #active = new Set<Generation>()
  readonly #idleWaiters: (() => void)[] = []
  #isDraining = false

  /** `tracer` null = no traces. */
  constructor(engine: EnginePort, maxQueue: number, observer: GenerationObserver, tracer: RequestTracer | null = null) {
    this.#tracer = tracer
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

  /** ENGINE_STARTING, DRAINING or ENGINE_DEAD while no requests are taken; else null. For probes, which are not refused. */
  refusal(): LorikeetError | null {
    if (this.#isDraining || this.#engine.state === 'draining') return new LorikeetError('DRAINING')
    if (this.#engine.state === 'starting') return new LorikeetError('ENGINE_STARTING')
    if (this.#engine.state === 'dead') return new LorikeetError('ENGINE_DEAD', { reason: 'see the server log' })
    return null
  }

  /** Throws what `refusal` gives. */
  assertReady(): void {
    const refusal = this.refusal()
    if (refusal !== null) throw this.#refuse(refusal)
  }

  /** Starts a call. Throws QUEUE_FULL, or what `assertReady` throws. */
  start(request: GenerationRequest, listener: GenerationListener): Generation {
    this.assertReady()
    const numWaiting = this.#numWaiting()
    if (numWaiting >= this.#maxQueue) throw this.#refuse(new LorikeetError('QUEUE_FULL', { numWaiting }))
    const generation = new Generation(this.#engine, request, listener)
    generation.span = this.#tracer?.start(request) ?? null
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

  #refuse(error: LorikeetError): LorikeetError {
    for (const observer of this.#observers) observer.onRefused?.(error)
    return error
  }

  /** The engine's own count lags by a step, so a burst would slip through it: what is in flight and cannot run must wait. */
  #numWaiting(): number {
    let numRunning = 0
    for (const generation of this.#active) numRunning += generation.numRunning
    return Math.max(0, numRunning - this.#engine.model.maxNumSeqs)
  }

  #end(generation: Generation): void {
    if (!this.#active.delete(generation)) return
    generation.span?.end(generation)
    for (const observer of this.#observers) observer.onEnded(generation)
    if (this.#active.size === 0) for (const resolve of this.#idleWaiters.splice(0)) resolve()
  }
}
