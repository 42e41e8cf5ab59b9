// Adapters by slot: one contiguous slab of the arena each, filled over several steps.

import type { CompiledAdapter, VirtualTokens } from '../../adapter/primitive.ts'
import { type SiteShapes, siteShapes } from '../../adapter/site-shapes.ts'
import { type AdapterSlot, adapterSlot } from '../../core/ids.ts'
import { invariant } from '../../core/invariant.ts'
import type { ModelSource } from '../../model/model-source.ts'
import { type AdapterFeatures, type AdapterLayout, layoutAdapter, type SlabCopy } from './adapter-layout.ts'
import { Arena } from './arena.ts'
import type { DeviceBuffer } from './buffer.ts'
import type { Device } from './device.ts'
import type { CudaDtype } from './dtype.ts'
import { fitServedAdapter } from './served-adapter.ts'
import { DeviceEvent, type Stream } from './stream.ts'
import type { Uploader } from './uploader.ts'

export interface ResidentAdapter {
  readonly id: CompiledAdapter['id']
  /** Address of the adapter's record. */
  readonly slab: number
  readonly features: AdapterFeatures
  readonly virtualKind: VirtualTokens['kind'] | null
}

interface Loading {
  readonly copy: Generator<number, void>
  readonly isThere: DeviceEvent
}

export interface ResidentAdaptersOptions {
  readonly device: Device
  readonly uploader: Uploader
  readonly model: ModelSource
  readonly dtype: CudaDtype
  readonly budgetBytes: number
}

export class ResidentAdapters implements Disposable {
  readonly #options: ResidentAdaptersOptions
  readonly #shapes: SiteShapes
  readonly #memory: DeviceBuffer
  readonly #arena: Arena
  readonly #residents: (ResidentAdapter | null)[] = []
  readonly #loading = new Map<number, Loading>()
  /** Copies queued but perhaps not done: the next step waits for them on the device, not here. */
  readonly #arriving = new Map<number, DeviceEvent>()

  constructor(options: ResidentAdaptersOptions) {
    const { device, budgetBytes, model } = options
    this.#options = options
    this.#shapes = siteShapes(model)
    this.#memory = device.allocate(budgetBytes, 'adapters')
    this.#arena = new Arena(this.#memory.address, budgetBytes)
  }

  /** Bytes of the slab. Throws ADAPTER_REFUSED. */
  bytesOf(adapter: CompiledAdapter): number {
    return this.#layout(adapter).numBytes
  }

  /** Null when it does not fit beside what is loaded. Throws ADAPTER_REFUSED. */
  tryLoad(adapter: CompiledAdapter): AdapterSlot | null {
    invariant(!this.#residents.some((each) => each?.id === adapter.id), `adapter ${adapter.id} is not loaded yet`)
    const layout = this.#layout(adapter)
    const slab = this.#arena.tryAllocate(layout.numBytes)
    if (slab === null) return null
    const free = this.#residents.indexOf(null)
    const slot = free === -1 ? this.#residents.length : free
    const virtualKind = adapter.virtualTokens?.kind ?? null
    this.#residents[slot] = { id: adapter.id, slab, features: layout.features, virtualKind }
    this.#loading.set(slot, { copy: this.#copy(layout, slab), isThere: new DeviceEvent(this.#options.device) })
    return adapterSlot(slot)
  }

  /** Queues about `maxBytes` more; true when everything is queued. */
  continueLoad(slot: AdapterSlot, maxBytes: number): boolean {
    const loading = this.#loading.get(slot)
    if (loading === undefined) return true
    for (let numBytes = 0; numBytes < maxBytes; ) {
      const turn = loading.copy.next()
      if (turn.done === true) {
        loading.isThere.record(this.#options.uploader.stream)
        this.#loading.delete(slot)
        this.#arriving.set(slot, loading.isThere)
        return true
      }
      numBytes += turn.value
    }
    return false
  }

  /** No step that names the slot is running, since every step ends before the next call. */
  unload(slot: AdapterSlot): void {
    const resident = this.#residents[slot]
    invariant(resident != null, `adapter slot ${slot} is loaded`)
    this.#options.uploader.stream.synchronize()
    this.#arena.release(resident.slab)
    this.#residents[slot] = null
    this.#loading.get(slot)?.isThere[Symbol.dispose]()
    this.#loading.delete(slot)
    this.#arriving.get(slot)?.[Symbol.dispose]()
    this.#arriving.delete(slot)
  }

  /** For a step on `stream`, which waits for what is still travelling. */
  use(slot: number, stream: Stream): ResidentAdapter {
    const resident = this.#residents[slot]
    invariant(resident != null, `adapter slot ${slot} is loaded`)
    this.continueLoad(adapterSlot(slot), Number.POSITIVE_INFINITY)
    const arriving = this.#arriving.get(slot)
    if (arriving !== undefined) {
      stream.waitFor(arriving)
      if (arriving.isReached) {
        arriving[Symbol.dispose]()
        this.#arriving.delete(slot)
      }
    }
    return resident
  }

  /** One slot an adapter, one owner a byte. */
  checkIntegrity(): void {
    const ids = this.#residents.filter((each) => each !== null).map(({ id }) => id)
    invariant(new Set(ids).size === ids.length, 'an adapter has one slot')
    this.#arena.checkIntegrity()
  }

  [Symbol.dispose](): void {
    for (const { isThere } of this.#loading.values()) isThere[Symbol.dispose]()
    for (const event of this.#arriving.values()) event[Symbol.dispose]()
    this.#memory[Symbol.dispose]()
  }

  #layout(adapter: CompiledAdapter): AdapterLayout {
    const { model, dtype } = this.#options
    const sites = fitServedAdapter(adapter, this.#shapes, model.spec)
    return layoutAdapter({ model, dtype, shapes: this.#shapes }, adapter, sites)
  }

  *#copy(layout: AdapterLayout, slab: number): Generator<number, void> {
    // Padding must be zeros: it is multiplied with.
    this.#options.uploader.stream.clear(slab, layout.numBytes)
    yield* this.#options.uploader.copyBytes(layout.record(slab), slab)
    for (const copy of layout.copies) yield* this.#copyOne(copy, slab)
  }

  #copyOne(copy: SlabCopy, slab: number): Generator<number, void> {
    const { uploader } = this.#options
    const target = slab + copy.offset
    if (copy.kind === 'packed') return uploader.copyPacked({ ...copy, target })
    const { source } = copy
    return uploader.copyBytes(new Uint8Array(source.buffer, source.byteOffset, source.byteLength), target)
  }
}
