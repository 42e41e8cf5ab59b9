// An adapter store for engine tests: loads take a given number of ticks, the device holds a given number of adapters.

import type { AdapterActivity, AdapterTraits } from '../../src/adapter/adapter-generation.ts'
import type { Backend } from '../../src/backend/backend.ts'
import { type AdapterId, type AdapterSlot, adapterId, adapterSlot } from '../../src/core/ids.ts'
import { invariant } from '../../src/core/invariant.ts'
import type { EngineAdapters } from '../../src/engine/engine-adapters.ts'
import type { AdapterInfo, AdapterSource } from '../../src/engine/messages.ts'
import { LorikeetError } from '../../src/errors.ts'

export interface FakeAdapterTraits extends AdapterTraits {
  readonly digest: string
  readonly numBytes: number
}

interface Entry {
  readonly id: AdapterId
  readonly name: string
  readonly traits: FakeAdapterTraits
  slot: AdapterSlot | null
  /** Of the copy to the device. */
  numBytesLeft: number
  numPins: number
  numHolders: number
  isListed: boolean
  isInHost: boolean
  failure: LorikeetError | null
  lastUsed: number
}

export class FakeAdapters implements EngineAdapters {
  readonly #backend: Backend
  readonly #entries = new Map<AdapterId, Entry>()
  readonly #successors = new Map<AdapterId, AdapterId>()
  #nextId: number
  #clock = 0
  /** To the device, by all adapters together. */
  numBytesCopied = 0
  counters = { loads: 0, evictions: 0, deviceBytes: 0 }

  constructor(backend: Backend, firstAdapterId = 1) {
    this.#backend = backend
    this.#nextId = firstAdapterId
  }

  add(name: string, traits: Partial<FakeAdapterTraits> = {}): AdapterId {
    const id = adapterId(this.#nextId++)
    const digest = traits.digest ?? `digest of ${name}`
    this.#entries.set(id, {
      id,
      name,
      traits: {
        digest,
        kvDigest: digest,
        invocationTokenIds: null,
        numVirtualTokens: 0,
        numGivenTokens: 0,
        positionOffset: 0,
        promptCoupling: 'none',
        numBytes: 1,
        ...traits,
      },
      slot: null,
      numBytesLeft: 0,
      numPins: 0,
      numHolders: 0,
      isListed: true,
      isInHost: true,
      failure: null,
      lastUsed: 0,
    })
    return id
  }

  /** From now on a load from disk is needed, and `finishLoad` ends it. */
  dropFromHost(id: AdapterId): void {
    const entry = this.#at(id)
    this.#evict(entry)
    entry.isInHost = false
  }

  finishLoad(id: AdapterId, failure: LorikeetError | null = null): void {
    this.#at(id).isInHost = failure === null
    this.#at(id).failure = failure
  }

  async register(source: AdapterSource, replace: boolean): Promise<AdapterInfo> {
    await Promise.resolve()
    if (source.path.includes('missing')) throw new LorikeetError('ADAPTER_NOT_FOUND', { name: source.name, path: source.path })
    const old = [...this.#entries.values()].find((entry) => entry.isListed && entry.name === source.name)
    if (old !== undefined && !replace) throw new LorikeetError('ADAPTER_NAME_TAKEN', { name: source.name })
    if (old !== undefined) this.#unlist(old)
    const id = this.add(source.name, { digest: source.path })
    if (old !== undefined) this.#successors.set(old.id, id)
    return this.info(id) as AdapterInfo
  }

  unregister(name: string): void {
    const entry = [...this.#entries.values()].find((e) => e.isListed && e.name === name)
    if (entry === undefined) throw new LorikeetError('MODEL_NOT_FOUND', { model: name })
    this.#unlist(entry)
  }

  list(): AdapterInfo[] {
    return [...this.#entries.values()].filter((entry) => entry.isListed).map((entry) => this.#describe(entry))
  }

  info(id: AdapterId): AdapterInfo | null {
    const entry = this.#entries.get(id)
    return entry === undefined ? null : this.#describe(entry)
  }

  isKnown(id: AdapterId): boolean {
    return this.#entries.has(id)
  }

  current(id: AdapterId): AdapterId {
    return this.isKnown(id) ? id : (this.#successors.get(id) ?? id)
  }

  addHolder(id: AdapterId): void {
    this.#at(id).numHolders++
  }

  dropHolder(id: AdapterId): void {
    const entry = this.#at(id)
    invariant(--entry.numHolders >= 0, 'holder dropped twice')
    this.#sweep(entry)
  }

  tryAcquire(id: AdapterId, maxCopyBytes: number): AdapterSlot | null {
    const entry = this.#at(id)
    if (!entry.isInHost) return null
    entry.slot ??= this.#load(entry)
    if (entry.slot === null) return null
    const numBytes = Math.min(entry.numBytesLeft, maxCopyBytes)
    entry.numBytesLeft -= numBytes
    this.numBytesCopied += numBytes
    if (entry.numBytesLeft > 0) return null
    entry.numPins++
    entry.lastUsed = ++this.#clock
    return entry.slot
  }

  isCopying(id: AdapterId): boolean {
    const { slot, numBytesLeft } = this.#at(id)
    return slot !== null && numBytesLeft > 0
  }

  release(id: AdapterId): void {
    invariant(--this.#at(id).numPins >= 0, 'released twice')
  }

  failure(id: AdapterId): LorikeetError | null {
    return this.#at(id).failure
  }

  compiled(id: AdapterId): AdapterTraits {
    return this.#at(id).traits
  }

  takeActivity(): readonly AdapterActivity[] {
    return []
  }

  checkIntegrity(): void {
    const slots = [...this.#entries.values()].filter((entry) => entry.slot !== null).map((entry) => entry.slot)
    invariant(new Set(slots).size === slots.length, 'two adapters on one slot')
    for (const entry of this.#entries.values()) {
      invariant(entry.numPins === 0 || entry.slot !== null, 'pinned but not on the device')
      invariant(entry.numPins <= entry.numHolders, 'more pins than holders')
    }
  }

  numPins(): number {
    return [...this.#entries.values()].reduce((sum, entry) => sum + entry.numPins, 0)
  }

  numHolders(): number {
    return [...this.#entries.values()].reduce((sum, entry) => sum + entry.numHolders, 0)
  }

  #load(entry: Entry): AdapterSlot | null {
    const { digest, kvDigest, numBytes, numVirtualTokens: numTokens, numGivenTokens } = entry.traits
    const soft = { kind: 'soft-prompt' as const, numTokens, rows: new Float32Array(0), layerRows: null }
    const prefix = { kind: 'prefix' as const, numTokens, keys: [], values: [], positions: 'shift' as const, gates: null }
    const compiled = {
      id: entry.id,
      name: entry.name,
      kind: 'LORA',
      digest,
      kvDigest,
      maxRank: 1,
      numBytes,
      sites: new Map(),
      virtualTokens: numTokens === 0 ? null : numGivenTokens > 0 ? prefix : soft,
      promptCoupling: 'none' as const,
      invocationTokenIds: null,
    }
    for (;;) {
      const slot = this.#backend.loadAdapter(compiled)
      if (slot !== null) {
        entry.numBytesLeft = numBytes
        this.counters.loads++
        this.counters.deviceBytes += numBytes
        return adapterSlot(slot)
      }
      const victim = [...this.#entries.values()]
        .filter((e) => e.slot !== null && e.numPins === 0 && (e.numBytesLeft === 0 || e.numHolders === 0))
        .sort((a, b) => a.lastUsed - b.lastUsed)[0]
      if (victim === undefined) return null
      this.#evict(victim)
      this.counters.evictions++
    }
  }

  #evict(entry: Entry): void {
    if (entry.slot === null) return
    this.#backend.unloadAdapter(entry.slot)
    this.counters.deviceBytes -= entry.traits.numBytes
    entry.slot = null
  }

  #unlist(entry: Entry): void {
    entry.isListed = false
    this.#sweep(entry)
  }

  #sweep(entry: Entry): void {
    if (entry.isListed || entry.numHolders > 0) return
    this.#evict(entry)
    this.#entries.delete(entry.id)
  }

  #describe(entry: Entry): AdapterInfo {
    const resident = entry.slot === null ? 'loaded' : entry.numPins > 0 ? 'pinned' : 'active'
    return {
      id: entry.id,
      name: entry.name,
      path: `/adapters/${entry.name}`,
      kind: 'LORA',
      digest: entry.traits.digest,
      maxRank: 1,
      numVirtualTokens: entry.traits.numVirtualTokens,
      numBytes: entry.traits.numBytes,
      hostBytes: entry.isInHost ? entry.traits.numBytes : 0,
      deviceBytes: entry.slot === null ? 0 : entry.traits.numBytes,
      isLoading: false,
      isMixture: false,
      loadedAtMs: 0,
      state: entry.isInHost ? resident : 'registered',
    }
  }

  #at(id: AdapterId): Entry {
    const entry = this.#entries.get(id)
    invariant(entry !== undefined, `adapter ${id} is unknown`)
    return entry
  }
}
