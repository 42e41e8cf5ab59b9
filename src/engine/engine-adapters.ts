// What the engine asks of the adapter store; AdapterStore satisfies it.

import type { AdapterActivity, AdapterInfo, AdapterSource, AdapterTraits } from '../adapter/adapter-generation.ts'
import type { AdapterId, AdapterSlot } from '../core/ids.ts'
import type { LorikeetError } from '../errors.ts'

export interface EngineAdapters {
  register(source: AdapterSource, replace: boolean): Promise<AdapterInfo>
  unregister(name: string): void
  list(): readonly AdapterInfo[]
  info(id: AdapterId): AdapterInfo | null
  /** Listed, or replaced but still held by a request. */
  isKnown(id: AdapterId): boolean
  /** The generation a new request that names `id` runs on: a replacement may have overtaken the request on its way here. */
  current(id: AdapterId): AdapterId
  addHolder(id: AdapterId): void
  dropHolder(id: AdapterId): void
  /**
   * Pins the adapter and returns its device index; null = still loading, or no room beside what is pinned. A copy to the
   * device goes on by about `maxCopyBytes` a call.
   */
  tryAcquire(id: AdapterId, maxCopyBytes: number): AdapterSlot | null
  /** Has room on the device and not yet all of its weights there. */
  isCopying(id: AdapterId): boolean
  release(id: AdapterId): void
  /** Why the last asynchronous load failed, if it did. */
  failure(id: AdapterId): LorikeetError | null
  compiled(id: AdapterId): AdapterTraits | null
  readonly counters: AdapterCounters
  /** What happened to weights since the last call. */
  takeActivity(): readonly AdapterActivity[]
  checkIntegrity(): void
}

export interface AdapterCounters {
  readonly loads: number
  readonly evictions: number
  /** Bytes on the device now. */
  readonly deviceBytes: number
}
