// A hundred requests of one adapter with virtual tokens hold one copy of the blocks those fill. The prefix cache shares them once
// they are computed; this is for requests that come together: one computes, the others are admitted when it has.

import { invariant } from '../core/invariant.ts'
import type { KvCacheManager } from '../kv/kv-cache-manager.ts'
import type { EngineRequest } from './request.ts'

export class VirtualPrefixes {
  readonly #kv: KvCacheManager
  /** Running requests that were the first with their adapter's virtual tokens, until those are in the prefix cache. */
  #leaders: EngineRequest[] = []

  constructor(kv: KvCacheManager) {
    this.#kv = kv
  }

  /** Forgets leaders that are done or gone. Call once a step, before any `mustWait`. */
  refresh(): void {
    if (this.#leaders.length > 0) this.#leaders = this.#leaders.filter((leader) => this.#isComputing(leader))
  }

  /** Whether another request is computing the blocks this one would share. */
  mustWait(request: EngineRequest): boolean {
    const { text } = request.kv.virtualSeed
    return this.#leaders.some((leader) => leader !== request && leader.kv.virtualSeed.text === text)
  }

  /** A request was admitted. */
  noteAdmitted(request: EngineRequest): void {
    if (this.#isComputing(request)) this.#leaders.push(request)
  }

  /** No block of virtual tokens is being computed twice. */
  checkIntegrity(running: readonly EngineRequest[]): void {
    const computing = running.filter((request) => this.#isComputing(request)).map(({ kv }) => kv.virtualSeed.text)
    invariant(new Set(computing).size === computing.length, 'two requests compute the same virtual tokens')
  }

  #isComputing(request: EngineRequest): boolean {
    return request.status === 'running' && request.numComputedTokens < this.#kv.numSharedVirtualTokens(request.kv)
  }
}
