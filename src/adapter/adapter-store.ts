// The one owner of adapters on the engine thread. It never blocks: disk work happens behind `loader`, and no room is null.
//
//   registered ──load──> loaded ──tryAcquire──> active <──release/tryAcquire──> pinned
//       ^                  | ^                     |
//       └── host budget ───┘ └── evicted for room ─┘
//
// A name points at one generation. Replacing or unregistering takes a generation off the list; it lives on, drained by the
// requests that hold it, and is freed with the last of them.

import { type AdapterId, type AdapterSlot, adapterId } from '../core/ids.ts'
import { invariant } from '../core/invariant.ts'
import { asLorikeetError, LorikeetError } from '../errors.ts'
import { ActivityLog } from './activity-log.ts'
import {
  type AdapterActivity,
  type AdapterInfo,
  type AdapterSource,
  type AdapterTraits,
  type Generation,
  infoOf,
  leastRecentlyUsed,
} from './adapter-generation.ts'
import type { CompiledAdapter } from './primitive.ts'
import { Successors } from './successors.ts'
import { countVirtualTokens } from './virtual-tokens.ts'

/** What the store asks of a backend. */
export interface AdapterDevice {
  readonly capacity: { readonly adapterBytes: number }
  adapterBytes(adapter: CompiledAdapter): number
  prepare(adapter: CompiledAdapter): Promise<void>
  loadAdapter(adapter: CompiledAdapter): AdapterSlot | null
  continueLoad(slot: AdapterSlot, maxBytes: number): boolean
  unloadAdapter(slot: AdapterSlot): void
}

/** Reads and compiles off this thread. Rejects with coded errors. */
export interface AdapterLoader {
  load(source: AdapterSource, id: AdapterId): Promise<CompiledAdapter>
}

export interface AdapterStoreOptions {
  readonly device: AdapterDevice
  readonly loader: AdapterLoader
  /** Budget for weights in host memory. */
  readonly hostBytes: number
  /** Ids count up from here; a store that follows one that died must not give its ids to others. Default 1. */
  readonly firstAdapterId?: number
  /** Epoch milliseconds. */
  readonly clock: () => number
  /** After every change of the list, and whenever weights were loaded or evicted. */
  readonly onChange?: () => void
}

export interface AdapterCounters {
  /** Copies to the device so far. */
  readonly loads: number
  /** Adapters taken off the device to make room, so far. */
  readonly evictions: number
  /** Reads from disk so far. */
  readonly diskLoads: number
  /** On the device now. */
  readonly deviceBytes: number
}

export class AdapterStore implements Disposable {
  readonly #options: AdapterStoreOptions
  /** Every generation that is listed or held. */
  readonly #generations = new Map<AdapterId, Generation>()
  /** Those with a slot, and those being read again: steps look at these alone, however many are listed. */
  readonly #active = new Set<Generation>()
  readonly #reloading = new Set<Generation>()
  /** By name, in load order; a replaced one keeps its place. */
  readonly #listed = new Map<string, Generation>()
  /** Tail of the queue of `register` calls of one name. */
  readonly #pendingByName = new Map<string, Promise<unknown>>()
  readonly #successors = new Successors()
  readonly #activity: ActivityLog
  #nextId: number
  #tick = 0
  #numLoads = 0
  #numEvictions = 0
  #numDiskLoads = 0
  #isDisposed = false

  constructor(options: AdapterStoreOptions) {
    this.#options = options
    this.#activity = new ActivityLog(options.clock)
    this.#nextId = options.firstAdapterId ?? 1
  }

  /**
   * Loads, validates and lists an adapter. Calls for one name run one after the other, different names in parallel.
   * Rejects with ADAPTER_NAME_TAKEN, ADAPTER_TOO_LARGE or what the loader and the device say; the list is then unchanged.
   */
  register(source: AdapterSource, replace: boolean): Promise<AdapterInfo> {
    const { name } = source
    const before = this.#pendingByName.get(name) ?? Promise.resolve()
    const result = before.then(() => this.#register(source, replace))
    const settled = result.then(
      () => {},
      () => {},
    )
    this.#pendingByName.set(name, settled)
    void settled.then(() => {
      if (this.#pendingByName.get(name) === settled) this.#pendingByName.delete(name)
    })
    return result
  }

  /** Takes the adapter off the list; requests on it finish. Throws MODEL_NOT_FOUND. */
  unregister(name: string): void {
    const generation = this.#listed.get(name)
    if (generation === undefined) throw new LorikeetError('MODEL_NOT_FOUND', { model: name }, { field: 'lora_name' })
    this.#listed.delete(name)
    this.#unlist(generation)
    this.#options.onChange?.()
  }

  find(name: string): AdapterId | null {
    return this.#listed.get(name)?.id ?? null
  }

  info(id: AdapterId): AdapterInfo | null {
    const generation = this.#generations.get(id)
    return generation === undefined ? null : this.#infoOf(generation)
  }

  list(): AdapterInfo[] {
    return Array.from(this.#listed.values(), (generation) => this.#infoOf(generation))
  }

  isKnown(id: AdapterId): boolean {
    return this.#generations.has(id)
  }

  /** The generation for a new request that names `id`: that one while it is known, else what has replaced it meanwhile. */
  current(id: AdapterId): AdapterId {
    return this.isKnown(id) ? id : this.#successors.newest(id)
  }

  compiled(id: AdapterId): AdapterTraits | null {
    return this.#generations.get(id)?.traits ?? null
  }

  /** Why the adapter cannot be made resident; null while it can, or is being loaded. Forgotten with the last holder. */
  failure(id: AdapterId): LorikeetError | null {
    return this.#generations.get(id)?.failure ?? null
  }

  /** A request, waiting or running, names this generation. */
  addHolder(id: AdapterId): void {
    this.#get(id).numHolders++
  }

  dropHolder(id: AdapterId): void {
    const generation = this.#get(id)
    invariant(generation.numHolders > 0, `adapter ${id} has a holder`)
    generation.numHolders--
    // Every request that waited for the failed load has been told; the next one is worth another try.
    if (generation.numHolders === 0) generation.failure = null
    this.#freeIfUnused(generation)
  }

  /**
   * Pins the adapter to its slot. Null = not resident: it is being read or copied, has failed, or pinned ones leave no room.
   * A copy to the device goes on by about `maxCopyBytes` a call.
   */
  tryAcquire(id: AdapterId, maxCopyBytes = Number.POSITIVE_INFINITY): AdapterSlot | null {
    const generation = this.#get(id)
    generation.lastUsed = ++this.#tick
    if (generation.adapterSlot === null && generation.failure === null) {
      if (generation.host === null) this.#startReload(generation)
      else this.#tryActivate(generation, generation.host)
    }
    if (generation.adapterSlot === null || !this.#tryFinishCopy(generation, generation.adapterSlot, maxCopyBytes)) return null
    generation.numPins++
    return generation.adapterSlot
  }

  /** Has a slot and not yet all of its weights there. */
  isCopying(id: AdapterId): boolean {
    const { adapterSlot, isCopied } = this.#get(id)
    return adapterSlot !== null && !isCopied
  }

  release(id: AdapterId): void {
    const generation = this.#get(id)
    invariant(generation.numPins > 0, `adapter ${id} is pinned`)
    generation.numPins--
    generation.lastUsed = ++this.#tick
    this.#freeIfUnused(generation)
  }

  get counters(): AdapterCounters {
    return {
      loads: this.#numLoads,
      evictions: this.#numEvictions,
      diskLoads: this.#numDiskLoads,
      deviceBytes: this.#deviceBytes(),
    }
  }

  /** What happened to weights since the last call. */
  takeActivity(): readonly AdapterActivity[] {
    return this.#activity.take()
  }

  /** Bytes of weights in host memory now. */
  get hostBytes(): number {
    return sumOf(this.#generations.values(), ({ host, numBytes }) => (host === null ? 0 : numBytes))
  }

  /** Slots and generations are a bijection, pinned ones are resident, budgets hold, nothing unheld lives off the list. */
  checkIntegrity(): void {
    const slots = new Set<AdapterSlot>()
    for (const generation of this.#generations.values()) {
      const { id, adapterSlot, isCopied, numPins, numHolders, isListed } = generation
      invariant(numPins >= 0 && numHolders >= 0, `adapter ${id} has negative counts`)
      invariant(numPins === 0 || (adapterSlot !== null && isCopied), `adapter ${id} is pinned without its weights`)
      invariant(isListed || numHolders > 0 || numPins > 0, `adapter ${id} is off the list and unheld`)
      invariant(isListed === (this.#listed.get(generation.source.name) === generation), `adapter ${id} and the list disagree`)
      invariant(this.#active.has(generation) === (adapterSlot !== null), `adapter ${id} and the set of active ones disagree`)
      if (adapterSlot === null) continue
      invariant(!slots.has(adapterSlot), `slot ${adapterSlot} has two adapters`)
      slots.add(adapterSlot)
    }
    for (const { id } of this.#listed.values()) invariant(this.#generations.has(id), `listed adapter ${id} is unknown`)
    invariant(slots.size === this.#active.size, 'every active adapter is known')
    invariant(this.hostBytes <= this.#options.hostBytes, 'adapters exceed the host budget')
    invariant(this.#deviceBytes() <= this.#options.device.capacity.adapterBytes, 'adapters exceed the device budget')
  }

  /** Frees everything; loads still under way are dropped when they arrive. */
  dispose(): void {
    if (this.#isDisposed) return
    this.#isDisposed = true
    for (const generation of this.#generations.values()) this.#deactivate(generation)
    this.#generations.clear()
    this.#listed.clear()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  async #register(source: AdapterSource, replace: boolean): Promise<AdapterInfo> {
    const { name } = source
    if (this.#listed.has(name) && !replace) throw new LorikeetError('ADAPTER_NAME_TAKEN', { name }, { field: 'lora_name' })
    const startedAtMs = this.#options.clock()
    const generation = await this.#read(source, adapterId(this.#nextId++)).catch((thrown: unknown) => {
      this.#activity.addLoad(name, 'host', startedAtMs, true)
      this.#options.onChange?.()
      throw thrown
    })
    if (this.#isDisposed) throw new LorikeetError('DRAINING')
    this.#activity.addLoad(name, 'host', startedAtMs)
    const { id } = generation
    const replaced = this.#listed.get(name)
    this.#generations.set(id, generation)
    this.#listed.set(name, generation)
    if (replaced !== undefined) {
      this.#successors.record(replaced.id, id, this.#options.clock())
      this.#unlist(replaced)
    }
    this.#trimHost(generation)
    this.#options.onChange?.()
    return this.#infoOf(generation)
  }

  async #read(source: AdapterSource, id: AdapterId): Promise<Generation> {
    const adapter = await this.#options.loader.load(source, id)
    this.#numDiskLoads++
    const generation = this.#createGeneration(source, adapter)
    await this.#options.device.prepare(adapter)
    return generation
  }

  #createGeneration(source: AdapterSource, adapter: CompiledAdapter): Generation {
    const { device, hostBytes, clock } = this.#options
    const { id, kind, digest, maxRank, numBytes, kvDigest, invocationTokenIds, virtualTokens, promptCoupling } = adapter
    const deviceBytes = device.adapterBytes(adapter)
    refuseOver(source.name, numBytes, hostBytes, 'the host memory budget for adapters')
    refuseOver(source.name, deviceBytes, device.capacity.adapterBytes, 'the device memory budget for adapters')
    return {
      id,
      source,
      kind,
      digest,
      traits: { kvDigest, invocationTokenIds, promptCoupling, ...countVirtualTokens(virtualTokens) },
      maxRank,
      numBytes,
      deviceBytes,
      loadedAtMs: clock(),
      host: adapter,
      adapterSlot: null,
      activatedAtMs: 0,
      isCopied: false,
      numPins: 0,
      numHolders: 0,
      isListed: true,
      failure: null,
      lastUsed: ++this.#tick,
    }
  }

  #tryActivate(generation: Generation, host: CompiledAdapter): void {
    const { device } = this.#options
    const pinnedBytes = sumOf(this.#active, (active) => (isEvictable(active) ? 0 : active.deviceBytes))
    // Evicting what would not be enough helps nobody.
    if (pinnedBytes + generation.deviceBytes > device.capacity.adapterBytes) return
    try {
      for (;;) {
        const slot = device.loadAdapter(host)
        if (slot !== null) {
          generation.adapterSlot = slot
          generation.activatedAtMs = this.#options.clock()
          generation.isCopied = false
          this.#active.add(generation)
          this.#numLoads++
          return
        }
        const victim = leastRecentlyUsed([...this.#active].filter(isEvictable))
        if (victim === null) return
        this.#deactivate(victim)
        this.#numEvictions++
        this.#activity.addEviction(victim.source.name, 'device')
      }
    } catch (thrown) {
      generation.failure = asLorikeetError(thrown)
    }
  }

  #tryFinishCopy(generation: Generation, slot: AdapterSlot, maxBytes: number): boolean {
    if (generation.isCopied) return true
    const { source, activatedAtMs } = generation
    try {
      generation.isCopied = this.#options.device.continueLoad(slot, maxBytes)
      if (!generation.isCopied) return false
    } catch (thrown) {
      generation.failure = asLorikeetError(thrown)
      this.#deactivate(generation)
    }
    this.#activity.addLoad(source.name, 'device', activatedAtMs, generation.failure !== null)
    this.#options.onChange?.()
    return generation.isCopied
  }

  #deactivate(generation: Generation): void {
    if (generation.adapterSlot === null) return
    this.#options.device.unloadAdapter(generation.adapterSlot)
    generation.adapterSlot = null
    generation.isCopied = false
    this.#active.delete(generation)
  }

  #startReload(generation: Generation): void {
    if (this.#reloading.has(generation)) return
    const loadingBytes = sumOf(this.#reloading, ({ numBytes }) => numBytes)
    // What arrives must have room, or loads of many waiting adapters would push each other out before any is used.
    if (loadingBytes + generation.numBytes > this.#options.hostBytes) return
    this.#reloading.add(generation)
    const startedAtMs = this.#options.clock()
    this.#options.loader.load(generation.source, generation.id).then(
      (adapter) => this.#finishReload(generation, adapter, startedAtMs),
      (thrown: unknown) => this.#failReload(generation, asLorikeetError(thrown), startedAtMs),
    )
  }

  #finishReload(generation: Generation, adapter: CompiledAdapter, startedAtMs: number): void {
    if (adapter.digest !== generation.digest) {
      const { name } = generation.source
      const reason = 'the files changed on disk since the adapter was loaded; load it again with load_inplace: true'
      const error = new LorikeetError('ADAPTER_REFUSED', { name, field: 'adapter_model.safetensors', reason })
      this.#failReload(generation, error, startedAtMs)
      return
    }
    this.#reloading.delete(generation)
    if (!this.#generations.has(generation.id)) return
    this.#numDiskLoads++
    this.#activity.addLoad(generation.source.name, 'host', startedAtMs)
    generation.host = adapter
    this.#trimHost(generation)
    this.#options.onChange?.()
  }

  #failReload(generation: Generation, error: LorikeetError, startedAtMs: number): void {
    this.#reloading.delete(generation)
    if (!this.#generations.has(generation.id)) return
    this.#activity.addLoad(generation.source.name, 'host', startedAtMs, true)
    generation.failure = error
    this.#options.onChange?.()
  }

  /** Drops host copies until the budget holds: the least missed, among those the least recently used. `newest` stays. */
  #trimHost(newest: Generation): void {
    while (this.hostBytes > this.#options.hostBytes) {
      const held = [...this.#generations.values()].filter((generation) => generation.host !== null && generation !== newest)
      const leastMissed = Math.min(...held.map(worthOfHostCopy))
      const victim = leastRecentlyUsed(held.filter((generation) => worthOfHostCopy(generation) === leastMissed))
      invariant(victim !== null, 'one adapter fits the host budget')
      victim.host = null
      this.#activity.addEviction(victim.source.name, 'host')
    }
  }

  #unlist(generation: Generation): void {
    generation.isListed = false
    this.#freeIfUnused(generation)
  }

  #freeIfUnused(generation: Generation): void {
    if (generation.isListed || generation.numHolders > 0 || generation.numPins > 0) return
    this.#deactivate(generation)
    this.#generations.delete(generation.id)
  }

  #infoOf(generation: Generation): AdapterInfo {
    return infoOf(generation, this.#reloading.has(generation))
  }

  #get(id: AdapterId): Generation {
    const generation = this.#generations.get(id)
    invariant(generation !== undefined, `adapter ${id} is known`)
    return generation
  }

  #deviceBytes(): number {
    return sumOf(this.#active, ({ deviceBytes }) => deviceBytes)
  }
}

/** A copy that a request waits for is finished first: two that wait would else push each other out for ever. */
function isEvictable({ numPins, numHolders, isCopied }: Generation): boolean {
  return numPins === 0 && (isCopied || numHolders === 0)
}

/** Higher = dropped later. */
function worthOfHostCopy({ isListed, numHolders, adapterSlot }: Generation): number {
  // A replaced generation cannot be read again once its files were overwritten, as reloading in place does.
  if (!isListed) return 3
  if (adapterSlot !== null) return 1
  // Waited for: dropping it would send it back to disk before its first use.
  return numHolders > 0 ? 2 : 0
}

function refuseOver(name: string, needBytes: number, haveBytes: number, budget: string): void {
  if (needBytes > haveBytes) throw new LorikeetError('ADAPTER_TOO_LARGE', { name, needBytes, budget, haveBytes })
}

function sumOf(generations: Iterable<Generation>, measure: (generation: Generation) => number): number {
  let sum = 0
  for (const generation of generations) sum += measure(generation)
  return sum
}
