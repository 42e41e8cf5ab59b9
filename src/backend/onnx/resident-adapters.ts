// Loaded adapters by slot: low-rank pages in the arena, vectors and single parameters beside it.

import { fitAdapter } from '../../adapter/adapter-fit.ts'
import type { CompiledAdapter } from '../../adapter/primitive.ts'
import type { SitePrimitives } from '../../adapter/site-primitives.ts'
import { type SiteShapes, siteShapes } from '../../adapter/site-shapes.ts'
import { virtualBytes } from '../../adapter/virtual-tokens.ts'
import { type AdapterSlot, adapterSlot, NO_ADAPTER_SLOT } from '../../core/ids.ts'
import { at, invariant } from '../../core/invariant.ts'
import type { ModelSource } from '../../model/model-source.ts'
import { type AdapterFeatures, adapterFeatures, bindSite, foldableVectors, ownBytes, rankOf } from './adapter-features.ts'
import { adaptedGroups, type DecoderLayout, type LinearGroup } from './decoder-layout.ts'
import { virtualExtras } from './extras/bind-extras.ts'
import { type Extra, type ExtraOp, extraBytes } from './extras/extra.ts'
import { type FoldedLinear, foldLinear } from './folded-site.ts'
import { groupKind, PAGE_RANK, partKind } from './graph-linear.ts'
import { PageArena } from './page-arena.ts'

/** Room taken, whether or not the weights are there yet. */
interface Reservation {
  readonly adapter: Pick<CompiledAdapter, 'id' | 'name' | 'virtualTokens'>
  readonly numBytes: number
  /** Arena pages by kind: `qkv.a` (all parts, one after another), `q.b`. */
  readonly pages: ReadonlyMap<string, readonly number[]>
}

export interface ResidentAdapter extends Reservation, AdapterFeatures {
  /** By key of their op. */
  readonly extras: ReadonlyMap<string, Extra>
  /** Pages of each linear kind (`q`) inside its group's A pages. */
  readonly pagesOfPart: ReadonlyMap<string, readonly number[]>
  /** Without low-rank weights, which are in the arena. */
  readonly vectors: ReadonlyMap<string, Omit<FoldedLinear, 'lowRanks'>>
  /** As the adapter brought them: norms, embeddings, head. */
  readonly primitives: ReadonlyMap<string, SitePrimitives>
}

interface PagedArray {
  readonly name: string
  readonly pages: readonly number[]
}

export class ResidentAdapters {
  readonly arena: PageArena
  readonly #model: ModelSource
  readonly #shapes: SiteShapes
  readonly #groups: readonly LinearGroup[]
  readonly #budgetBytes: number
  /** By slot. */
  readonly #reservations: (Reservation | null)[] = []
  readonly #residents = new Map<number, ResidentAdapter>()
  /** Copies under way; each turn writes one site and answers its bytes. */
  readonly #copies = new Map<number, Iterator<number, ResidentAdapter>>()
  /** Found by binding every primitive, which is done once. */
  readonly #features = new WeakMap<CompiledAdapter, AdapterFeatures>()

  constructor(model: ModelSource, layout: DecoderLayout, budgetBytes: number) {
    this.arena = new PageArena(layout, budgetBytes)
    this.#model = model
    this.#shapes = siteShapes(model)
    this.#groups = adaptedGroups(layout)
    this.#budgetBytes = budgetBytes
  }

  get usedBytes(): number {
    return this.#reservations.reduce((sum, each) => sum + (each?.numBytes ?? 0), 0)
  }

  /** Bytes in whole pages. Throws ADAPTER_REFUSED where a primitive does not fit the model. */
  bytesOf(adapter: CompiledAdapter): number {
    return this.#bytesOfSites(this.#fit(adapter)) + this.featuresOf(adapter).extraBytes + virtualBytes(adapter.virtualTokens)
  }

  /** Before it is loaded. Throws ADAPTER_REFUSED. */
  featuresOf(adapter: CompiledAdapter): AdapterFeatures {
    let features = this.#features.get(adapter)
    if (features === undefined) {
      features = adapterFeatures(this.#shapes, this.#model.spec, this.#fit(adapter), adapter.virtualTokens)
      this.#features.set(adapter, features)
    }
    return features
  }

  /** Takes room; null when there is too little beside what is loaded. */
  tryLoad(adapter: CompiledAdapter): AdapterSlot | null {
    invariant(!this.#reservations.some((each) => each?.adapter.id === adapter.id), `adapter ${adapter.id} is not loaded yet`)
    const numBytes = this.bytesOf(adapter)
    const primitives = this.#fit(adapter)
    if (this.usedBytes + numBytes > this.#budgetBytes) return null
    const pages = this.#allocate(primitives)
    if (pages === null) return null
    const { id, name, virtualTokens } = adapter
    const reservation = { adapter: { id, name, virtualTokens }, numBytes, pages }
    const free = this.#reservations.indexOf(null)
    const slot = free === -1 ? this.#reservations.length : free
    this.#reservations[slot] = reservation
    this.#copies.set(slot, this.#copy(reservation, primitives, this.featuresOf(adapter)))
    return adapterSlot(slot)
  }

  /** Copies sites until `maxBytes` are passed; true when all are there. */
  continueLoad(slot: AdapterSlot, maxBytes: number): boolean {
    const copy = this.#copies.get(slot)
    if (copy === undefined) return true
    for (let numBytes = 0; numBytes < maxBytes; ) {
      const turn = copy.next()
      if (turn.done === true) {
        this.#residents.set(slot, turn.value)
        this.#copies.delete(slot)
        return true
      }
      numBytes += turn.value
    }
    return false
  }

  unload(slot: AdapterSlot): void {
    const reservation = this.#reservations[slot]
    invariant(reservation != null, `adapter slot ${slot} is loaded`)
    for (const [kind, pages] of reservation.pages) this.arena.release(kind, pages)
    this.#reservations[slot] = null
    this.#residents.delete(slot)
    this.#copies.delete(slot)
  }

  /** Finishes the copy where it is still under way. */
  get(slot: number): ResidentAdapter {
    this.continueLoad(adapterSlot(slot), Number.POSITIVE_INFINITY)
    const resident = this.#residents.get(slot)
    invariant(resident !== undefined, `adapter slot ${slot} is loaded`)
    return resident
  }

  /** None while the copy is under way: no step has used them. */
  extrasOf(slot: number): Iterable<Extra> {
    return this.#residents.get(slot)?.extras.values() ?? []
  }

  /** Ops of every adapter that is there, each once. */
  loadedOps(): Iterable<ExtraOp> {
    const ops = new Map<string, ExtraOp>()
    for (const resident of this.#residents.values()) for (const op of resident.ops) ops.set(op.key, op)
    return ops.values()
  }

  /** Null for the base model. */
  find(slot: number): ResidentAdapter | null {
    return slot === NO_ADAPTER_SLOT ? null : this.get(slot)
  }

  /** One slot an adapter, one owner a page, no more bytes than the budget. */
  checkIntegrity(): void {
    const loaded = this.#reservations.filter((each) => each !== null)
    invariant(loaded.length === this.#residents.size + this.#copies.size, 'an adapter is there or being copied')
    invariant(new Set(loaded.map(({ adapter }) => adapter.id)).size === loaded.length, 'an adapter has one slot')
    invariant(this.usedBytes <= this.#budgetBytes, 'adapters stay within their budget')
    this.arena.checkIntegrity(loaded.map(({ pages }) => pages))
  }

  #fit(adapter: CompiledAdapter): ReadonlyMap<string, SitePrimitives> {
    return fitAdapter(adapter, this.#shapes, this.#model.spec)
  }

  #bytesOfSites(sites: ReadonlyMap<string, SitePrimitives>): number {
    let numBytes = 0
    for (const [kind, numPages] of this.#pagesNeeded(sites)) numBytes += numPages * this.arena.bytesPerPage(kind)
    for (const [site, primitives] of sites) {
      numBytes += ownBytes(this.#shapes.get(site)?.kind, primitives)
    }
    return numBytes
  }

  /** Pages of each kind: as many as the layer with the highest rank takes. */
  #pagesNeeded(sites: ReadonlyMap<string, SitePrimitives>): ReadonlyMap<string, number> {
    const pagesOfPart = new Map<string, number>()
    const needed = new Map<string, number>()
    for (const group of this.#groups) {
      for (const { site } of group.parts) {
        const numPages = Math.ceil(rankOf(sites.get(site), group.numIn) / PAGE_RANK)
        pagesOfPart.set(partKind(site), Math.max(pagesOfPart.get(partKind(site)) ?? 0, numPages))
      }
    }
    for (const group of this.#groups) {
      const counts = group.parts.map(({ site }) => pagesOfPart.get(partKind(site)) ?? 0)
      needed.set(
        `${groupKind(group)}.a`,
        counts.reduce((sum, count) => sum + count, 0),
      )
      group.parts.forEach(({ site }, part) => {
        needed.set(`${partKind(site)}.b`, at(counts, part))
      })
    }
    return needed
  }

  #allocate(sites: ReadonlyMap<string, SitePrimitives>): ReadonlyMap<string, readonly number[]> | null {
    const allocated = new Map<string, readonly number[]>()
    for (const [kind, numPages] of this.#pagesNeeded(sites)) {
      if (numPages === 0) continue
      const pages = this.arena.tryAllocate(kind, numPages)
      if (pages === null) {
        for (const [taken, each] of allocated) this.arena.release(taken, each)
        return null
      }
      allocated.set(kind, pages)
    }
    return allocated
  }

  *#copy(
    reservation: Reservation,
    sites: ReadonlyMap<string, SitePrimitives>,
    features: AdapterFeatures,
  ): Generator<number, ResidentAdapter> {
    const { pages } = reservation
    const vectors = new Map<string, FoldedLinear>()
    const pagesOfPart = new Map<string, readonly number[]>()
    for (const group of this.#groups) {
      let firstPage = 0
      for (const { site } of group.parts) {
        const bPages = pages.get(`${partKind(site)}.b`) ?? []
        const aPages = (pages.get(`${groupKind(group)}.a`) ?? []).slice(firstPage, firstPage + bPages.length)
        firstPage += bPages.length
        pagesOfPart.set(partKind(site), aPages)
        const primitives = sites.get(site)
        const folded = primitives === undefined ? null : this.#fold(site, primitives)
        if (folded !== null) vectors.set(site, { ...folded, lowRanks: [] })
        yield this.#writePages({ name: `${group.name}.a`, pages: aPages }, { name: `${site}.b`, pages: bPages }, folded)
      }
    }
    const extras = new Map<string, Extra>()
    for (const [site, primitives] of sites) {
      let numBytes = 0
      for (const extra of bindSite(site, this.#shapes, primitives, this.#model.spec)) {
        extras.set(extra.op.key, extra)
        numBytes += extraBytes(extra)
      }
      yield numBytes
    }
    const { virtualTokens } = reservation.adapter
    for (const extra of virtualExtras(virtualTokens, this.#model.spec)) extras.set(extra.op.key, extra)
    const primitives = withoutCopied(sites, this.#shapes)
    return { ...reservation, ...features, pagesOfPart, vectors, primitives, extras }
  }

  /** Answers the bytes written. */
  #writePages(a: PagedArray, b: PagedArray, folded: FoldedLinear | null): number {
    let row = 0
    let numElements = 0
    for (const lowRank of folded?.lowRanks ?? []) {
      this.arena.write(a.name, a.pages, lowRank.a, row)
      this.arena.write(b.name, b.pages, lowRank.b, row)
      row += lowRank.rank
      numElements += lowRank.a.length + lowRank.b.length
    }
    this.arena.clearFrom(a.name, a.pages, row)
    this.arena.clearFrom(b.name, b.pages, row)
    return numElements * Float32Array.BYTES_PER_ELEMENT
  }

  #fold(site: string, primitives: SitePrimitives): FoldedLinear {
    const shape = this.#shapes.get(site)
    invariant(shape !== undefined, `the model has a site ${site}`)
    const bias = this.#model.parameters.has(`${site}.bias`) ? this.#model.read(`${site}.bias`) : null
    return foldLinear(shape, { ...primitives, vectors: foldableVectors(primitives) }, bias, () => this.#model.read(site))
  }
}

/** Linears live in the arena, in `vectors` and in `extras`, hooks in `extras`; keeping their arrays here would hold them twice. */
function withoutCopied(
  primitives: ReadonlyMap<string, SitePrimitives>,
  shapes: SiteShapes,
): ReadonlyMap<string, SitePrimitives> {
  const kept: ReadonlySet<string | undefined> = new Set(['norm', 'embedding', 'head'])
  return new Map([...primitives].filter(([site]) => kept.has(shapes.get(site)?.kind)))
}
