import { fitAdapter } from '../../adapter/adapter-fit.ts'
import type { CompiledAdapter, VirtualTokens } from '../../adapter/primitive.ts'
import { arraysOf } from '../../adapter/primitive-arrays.ts'
import type { SitePrimitives } from '../../adapter/site-primitives.ts'
import type { SiteShapes } from '../../adapter/site-shapes.ts'
import { type AdapterSlot, adapterSlot, NO_ADAPTER_SLOT } from '../../core/ids.ts'
import { invariant } from '../../core/invariant.ts'
import type { DecoderSpec } from '../../model/decoder-spec.ts'

interface Resident {
  readonly adapter: CompiledAdapter
  readonly numBytes: number
  readonly sites: ReadonlyMap<string, SitePrimitives>
}

/** Adapters by slot, within a budget of bytes. */
export class ResidentAdapters {
  readonly #shapes: SiteShapes
  readonly #spec: DecoderSpec
  readonly #budgetBytes: number
  readonly #residents: (Resident | null)[] = []

  constructor(shapes: SiteShapes, spec: DecoderSpec, budgetBytes: number) {
    this.#shapes = shapes
    this.#spec = spec
    this.#budgetBytes = budgetBytes
  }

  get usedBytes(): number {
    return this.#residents.reduce((total, resident) => total + (resident?.numBytes ?? 0), 0)
  }

  bytesOf(adapter: CompiledAdapter): number {
    fitAdapter(adapter, this.#shapes, this.#spec)
    return numBytesOf(adapter)
  }

  /** Null when it does not fit beside what is loaded. */
  tryLoad(adapter: CompiledAdapter): AdapterSlot | null {
    invariant(
      !this.#residents.some((resident) => resident?.adapter.id === adapter.id),
      `adapter ${adapter.id} is not loaded yet`,
    )
    const sites = fitAdapter(adapter, this.#shapes, this.#spec)
    const numBytes = numBytesOf(adapter)
    if (this.usedBytes + numBytes > this.#budgetBytes) return null
    const free = this.#residents.indexOf(null)
    const slot = free === -1 ? this.#residents.length : free
    this.#residents[slot] = { adapter, numBytes, sites }
    return adapterSlot(slot)
  }

  unload(slot: AdapterSlot): void {
    invariant(this.#residents[slot] != null, `adapter slot ${slot} is loaded`)
    this.#residents[slot] = null
  }

  /** Primitives of the adapter in `slot` at `site`; null where it has none, and for the base model. */
  find(slot: number, site: string): SitePrimitives | null {
    if (slot === NO_ADAPTER_SLOT) return null
    const resident = this.#residents[slot]
    invariant(resident != null, `adapter slot ${slot} is loaded`)
    return resident.sites.get(site) ?? null
  }

  /** Of the adapter in `slot`. */
  virtualTokens(slot: number): VirtualTokens | null {
    return this.#residents[slot]?.adapter.virtualTokens ?? null
  }

  /** One slot an adapter, and no more bytes than the budget. */
  checkIntegrity(): void {
    const ids = this.#residents.filter((resident) => resident !== null).map((resident) => resident.adapter.id)
    invariant(new Set(ids).size === ids.length, 'an adapter has one slot')
    invariant(this.usedBytes <= this.#budgetBytes, 'adapters stay within their budget')
  }
}

/** Of the arrays as they lie in memory. */
function numBytesOf({ sites, virtualTokens }: CompiledAdapter): number {
  return [virtualTokens, ...sites.values()].flatMap(arraysOf).reduce((sum, array) => sum + array.byteLength, 0)
}
