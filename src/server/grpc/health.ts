// grpc.health.v1: SERVING while requests are taken. The state of adapters never changes it.

import type { Server } from '@grpc/grpc-js'
import { HealthImplementation } from 'grpc-health-check'
import type { Generations } from '../generation/generations.ts'

// An engine that died comes back by itself: probes ask every few seconds, and looking costs nothing.
const POLL_MS = 200

/** Health of the whole server, which is that of each of its services. */
export class Health {
  readonly #generations: Generations
  readonly #names: readonly string[]
  readonly #implementation: HealthImplementation
  readonly #timer: NodeJS.Timeout
  #isServing = false

  constructor(server: Server, serviceNames: readonly string[], generations: Generations) {
    this.#generations = generations
    this.#names = ['', ...serviceNames]
    this.#implementation = new HealthImplementation(Object.fromEntries(this.#names.map((name) => [name, 'NOT_SERVING'])))
    this.#implementation.addToServer(server)
    this.#timer = setInterval(() => this.update(), POLL_MS)
    this.#timer.unref()
    this.update()
  }

  /** Looks now, where waiting for the next look would be too late. */
  update(): void {
    const isServing = isReady(this.#generations)
    if (isServing === this.#isServing) return
    this.#isServing = isServing
    for (const name of this.#names) this.#implementation.setStatus(name, isServing ? 'SERVING' : 'NOT_SERVING')
  }

  close(): void {
    clearInterval(this.#timer)
  }
}

export function isReady(generations: Generations): boolean {
  return generations.refusal() === null
}
