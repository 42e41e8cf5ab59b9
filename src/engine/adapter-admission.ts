// Whether a waiting request can have its adapter on the device now, and how much of a step goes into bringing it there.

import type { AdapterId } from '../core/ids.ts'
import type { EngineAdapters } from './engine-adapters.ts'
import type { EngineRequest } from './request.ts'

/**
 * Weights copied to the device in a step that others run in, so that a load delays none of them: about 5 ms on one core,
 * where a step of a model with such adapters takes 30. A backend that copies beside its steps asks for less.
 */
const COPY_BYTES_PER_STEP = 4 * 1024 * 1024

export class AdapterAdmission {
  /** Of those waiting, how many were last found without their adapter. */
  numWaiting = 0
  readonly #adapters: EngineAdapters
  readonly #unavailable = new Set<AdapterId>()
  #copyBudget = 0
  #nowMs = 0

  constructor(adapters: EngineAdapters) {
    this.#adapters = adapters
  }

  beginStep(nowMs: number): void {
    this.#nowMs = nowMs
    this.#unavailable.clear()
    this.#copyBudget = COPY_BYTES_PER_STEP
  }

  /** Pins the adapter of a waiting request. `isIdle`: nothing else is in this step, so a copy may take as long as it does. */
  tryAcquire(request: EngineRequest, isIdle: boolean): boolean {
    const { id } = request.adapter
    if (id === null) return true
    if (this.#unavailable.has(id)) return false
    const wasThere = this.#hasSlot(id) && !this.#adapters.isCopying(id)
    const adapterSlot = this.#adapters.tryAcquire(id, isIdle ? Number.POSITIVE_INFINITY : this.#copyBudget)
    if (!wasThere && this.#hasSlot(id)) this.#spend(id)
    if (adapterSlot === null) this.#unavailable.add(id)
    else request.adapterSlot = adapterSlot
    return adapterSlot !== null
  }

  /** Its room is taken already, so that nobody else can have it before the copy is finished and used. */
  isCopying({ adapter }: EngineRequest): boolean {
    return adapter.id !== null && this.#adapters.isCopying(adapter.id)
  }

  /** In host memory, now or when it was passed before, and not on the device: what lacks is room, which pinned adapters hold. */
  waitsForRoom(request: EngineRequest): boolean {
    const { id } = request.adapter
    return id !== null && (request.numTimesPassed > 0 || this.#adapters.info(id)?.state === 'loaded')
  }

  mark(request: EngineRequest, isWaiting: boolean): void {
    const { adapterMissingSinceMs: sinceMs } = request
    if ((sinceMs !== null) === isWaiting) return
    this.numWaiting += isWaiting ? 1 : -1
    request.adapterMissingSinceMs = isWaiting ? this.#nowMs : null
    if (sinceMs !== null && request.firstScheduledAtMs === null) request.adapterWaitMs += this.#nowMs - sinceMs
  }

  #hasSlot(id: AdapterId): boolean {
    const state = this.#adapters.info(id)?.state
    return state === 'active' || state === 'pinned'
  }

  /** At most the whole adapter was copied; what a large one left over of its last share is not worth counting. */
  #spend(id: AdapterId): void {
    this.#copyBudget = Math.max(0, this.#copyBudget - (this.#adapters.info(id)?.numBytes ?? 0))
  }
}
