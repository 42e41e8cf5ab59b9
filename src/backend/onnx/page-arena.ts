// Low-rank weights of all loaded adapters, in pages of PAGE_RANK rank rows.
//
//   `${group}.a`  one array a linear group    [numPages, PAGE_RANK, numIn]     rank rows of A of every part of the group
//   `${site}.b`   one array a linear          [numPages, PAGE_RANK, numOut]    rank rows of B transposed, scales inside
//
// An adapter's page numbers are the same in all layers, so a step feeds one page table a kind and not one a layer; a layer
// with a lower rank has zero rows there. Arrays are reserved at the size of the whole budget but the system commits
// memory only where pages are written.

import { Tensor } from 'onnxruntime-node'
import { at, invariant } from '../../core/invariant.ts'
import { adaptedGroups, type DecoderLayout } from './decoder-layout.ts'
import type { Feeds } from './feeds.ts'
import { groupKind, PAGE_RANK, partKind } from './graph-linear.ts'

/** Always zero; pads ranks and rows. */
export const ZERO_PAGE = 0

/** Page numbers of one kind of array (`qkv.a`, `q.b`), in every layer that has it. */
interface PageKind {
  readonly name: string
  /** Names of the graph inputs, one a layer. */
  readonly inputs: readonly string[]
  readonly width: number
  readonly bytesPerPage: number
}

export class PageArena {
  readonly #kinds = new Map<string, PageKind>()
  readonly #free = new Map<string, number[]>()
  readonly #numUsed = new Map<string, number>()
  readonly #arrays = new Map<string, Float32Array>()
  readonly #tensors = new Map<string, Tensor>()
  readonly #budgetBytes: number

  constructor(layout: DecoderLayout, budgetBytes: number) {
    this.#budgetBytes = budgetBytes
    for (const group of adaptedGroups(layout)) {
      this.#addArray(`${groupKind(group)}.a`, `${group.name}.a`, group.numIn)
      for (const { site, numOut } of group.parts) this.#addArray(`${partKind(site)}.b`, `${site}.b`, numOut)
    }
    for (const { inputs, width } of this.#kinds.values()) {
      for (const input of inputs) this.#setArray(input, width, new Float32Array(PAGE_RANK * width))
    }
  }

  /** Bytes of one page over all layers. */
  bytesPerPage(kind: string): number {
    return this.#kind(kind).bytesPerPage
  }

  /** Null where the budget has no such pages left. */
  tryAllocate(kind: string, numPages: number): readonly number[] | null {
    const { bytesPerPage } = this.#kind(kind)
    const capacity = Math.floor(this.#budgetBytes / bytesPerPage)
    const free = this.#free.get(kind) ?? []
    const used = this.#numUsed.get(kind) ?? 0
    const numFresh = Math.max(0, numPages - free.length)
    if (used + numFresh > capacity) return null
    this.#reserve(kind, capacity)
    const pages = free.splice(0, numPages)
    for (let i = 0; i < numFresh; i++) pages.push(used + 1 + i)
    this.#numUsed.set(kind, used + numFresh)
    this.#free.set(kind, free)
    return pages
  }

  release(kind: string, pages: readonly number[]): void {
    // The lowest page is used first, so that what is resident stays close together.
    const free = [...(this.#free.get(kind) ?? []), ...pages].sort((a, b) => a - b)
    invariant(new Set(free).size === free.length, `a page of ${kind} is freed once`)
    this.#free.set(kind, free)
  }

  /** Rank rows from `firstRow` of the pages in order; rows beyond `rows` stay as they are. */
  write(input: string, pages: readonly number[], rows: Float32Array, firstRow: number): void {
    const array = this.#arrays.get(input)
    invariant(array !== undefined, `the arena has an array ${input}`)
    const width = (this.#tensors.get(input)?.dims[1] as number) / PAGE_RANK
    for (let row = 0; row < rows.length / width; row++) {
      const page = at(pages, Math.floor((firstRow + row) / PAGE_RANK))
      const offset = (page * PAGE_RANK + ((firstRow + row) % PAGE_RANK)) * width
      array.set(rows.subarray(row * width, (row + 1) * width), offset)
    }
  }

  /** Zeroes whole pages in all layers: they held another adapter. */
  clear(kind: string, pages: readonly number[]): void {
    const { inputs, width } = this.#kind(kind)
    const pageElements = PAGE_RANK * width
    for (const input of inputs) {
      for (const page of pages) this.#arrays.get(input)?.fill(0, page * pageElements, (page + 1) * pageElements)
    }
  }

  feed(feeds: Feeds): void {
    for (const [name, tensor] of this.#tensors) feeds.tensor(name, tensor)
  }

  /** Every page is free or used by one of `owned`, each list by kind. */
  checkIntegrity(owned: readonly ReadonlyMap<string, readonly number[]>[]): void {
    for (const kind of this.#kinds.keys()) {
      const pages = [...owned.flatMap((pagesOf) => pagesOf.get(kind) ?? []), ...(this.#free.get(kind) ?? [])]
      invariant(new Set(pages).size === pages.length, `a page of ${kind} has one owner`)
      invariant(pages.length === (this.#numUsed.get(kind) ?? 0), `every page of ${kind} is owned or free`)
      invariant(!pages.includes(ZERO_PAGE), 'the zero page is nobody’s')
    }
  }

  #addArray(kind: string, input: string, width: number): void {
    const known = this.#kinds.get(kind)
    invariant(known === undefined || known.width === width, `${kind} is as wide in every layer`)
    const bytes = PAGE_RANK * width * Float32Array.BYTES_PER_ELEMENT
    this.#kinds.set(kind, {
      name: kind,
      inputs: [...(known?.inputs ?? []), input],
      width,
      bytesPerPage: (known?.bytesPerPage ?? 0) + bytes,
    })
  }

  #reserve(kind: string, capacity: number): void {
    const { inputs, width } = this.#kind(kind)
    if (this.#numUsed.has(kind)) return
    for (const input of inputs) this.#setArray(input, width, new Float32Array((capacity + 1) * PAGE_RANK * width))
  }

  #setArray(input: string, width: number, array: Float32Array): void {
    this.#arrays.set(input, array)
    this.#tensors.set(input, new Tensor('float32', array, [array.length / (PAGE_RANK * width), PAGE_RANK * width]))
  }

  #kind(name: string): PageKind {
    const kind = this.#kinds.get(name)
    invariant(kind !== undefined, `the arena has pages of ${name}`)
    return kind
  }
}
