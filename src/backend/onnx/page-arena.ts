// Low-rank weights of all loaded adapters, in pages of PAGE_RANK rank rows.
//
//   `${group}.a`  one array a linear group    [numPages, PAGE_RANK, numIn]     rank rows of A of every part of the group
//   `${site}.b`   one array a linear          [numPages, PAGE_RANK, numOut]    rank rows of B transposed, scales inside
//
// An adapter's page numbers are the same in all layers, so a step feeds one page table a kind and not one a layer; a layer
// with a lower rank has zero rows there. Equal adapters lie side by side, so a step that uses most of a window multiplies
// with the arena in place; copying pages into tiles first doubled the cost of a mixed batch. Arrays are reserved at the size of the whole budget but the system commits
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

/** Tiles that lie side by side in the arena. */
export interface PageWindow {
  readonly firstPage: number
  readonly numTiles: number
  readonly pagesPerTile: number
}

export class PageArena {
  readonly #kinds = new Map<string, PageKind>()
  readonly #isOwned = new Map<string, boolean[]>()
  readonly #arrays = new Map<string, Float32Array>()
  readonly #paged = new Map<string, Tensor>()
  /** The last window fed of each kind and its tensors: it stays the same over most steps. */
  readonly #windows = new Map<string, { readonly window: PageWindow; readonly tensors: readonly Tensor[] }>()
  readonly #budgetBytes: number

  constructor(layout: DecoderLayout, budgetBytes: number) {
    this.#budgetBytes = budgetBytes
    for (const group of adaptedGroups(layout)) {
      this.#addArray(`${groupKind(group)}.a`, `${group.name}.a`, group.numIn)
      for (const { site, numOut } of group.parts) this.#addArray(`${partKind(site)}.b`, `${site}.b`, numOut)
    }
    for (const kind of this.#kinds.values()) this.#reserve(kind)
  }

  /** Bytes of one page over all layers. */
  bytesPerPage(kind: string): number {
    return this.#kind(kind).bytesPerPage
  }

  /**
   * Side by side and aligned to their number where there is such a place, so that equal adapters lie like elements of an
   * array. Null where the budget has too few pages left.
   */
  tryAllocate(kind: string, numPages: number): readonly number[] | null {
    const capacity = this.#capacityOf(this.#kind(kind))
    const isOwned = this.#isOwned.get(kind) ?? []
    const isFree = (page: number) => page <= capacity && isOwned[page] !== true
    let pages: number[] = []
    for (let first = ZERO_PAGE + 1; first + numPages - 1 <= capacity && pages.length === 0; first += numPages) {
      const run = Array.from({ length: numPages }, (_, i) => first + i)
      if (run.every(isFree)) pages = run
    }
    for (let page = ZERO_PAGE + 1; page <= capacity && pages.length < numPages; page++) if (isFree(page)) pages.push(page)
    if (pages.length < numPages) return null
    for (const page of pages) isOwned[page] = true
    this.#isOwned.set(kind, isOwned)
    return pages
  }

  release(kind: string, pages: readonly number[]): void {
    const isOwned = this.#isOwned.get(kind)
    for (const page of pages) {
      invariant(isOwned?.[page] === true, `page ${page} of ${kind} is freed once`)
      isOwned[page] = false
    }
  }

  /** Rank rows from `firstRow` of the pages in order. */
  write(input: string, pages: readonly number[], rows: Float32Array, firstRow: number): void {
    const { array, width } = this.#arrayOf(input)
    for (const { from, to, length } of runsOf(pages, firstRow, rows.length / width)) {
      array.set(rows.subarray(from * width, (from + length) * width), to * width)
    }
  }

  /** Zeroes rank rows from `firstRow` to the end of the pages: they held another adapter. */
  clearFrom(input: string, pages: readonly number[], firstRow: number): void {
    const { array, width } = this.#arrayOf(input)
    for (const { to, length } of runsOf(pages, firstRow, pages.length * PAGE_RANK - firstRow)) {
      array.fill(0, to * width, (to + length) * width)
    }
  }

  /** All pages, for a graph that gathers. */
  feedPages(feeds: Feeds): void {
    for (const [name, tensor] of this.#paged) feeds.tensor(name, tensor)
  }

  /** A window of tiles, for a graph that reads the arena directly. No pages = no rank: an empty product is zero. */
  feedWindow(feeds: Feeds, kind: string, window: PageWindow): void {
    const { inputs, width } = this.#kind(kind)
    const last = this.#windows.get(kind)
    const tensors = last !== undefined && isSameWindow(last.window, window) ? last.tensors : this.#windowTensors(kind, window)
    this.#windows.set(kind, { window, tensors })
    invariant(width > 0 && tensors.length === inputs.length, 'a tensor a layer')
    inputs.forEach((input, i) => {
      feeds.tensor(input, at(tensors, i))
    })
  }

  /** Every page has at most one owner, and what is marked owned is. */
  checkIntegrity(owned: readonly ReadonlyMap<string, readonly number[]>[]): void {
    for (const kind of this.#kinds.keys()) {
      const pages = owned.flatMap((pagesOf) => pagesOf.get(kind) ?? [])
      const marked = (this.#isOwned.get(kind) ?? []).flatMap((isOwned, page) => (isOwned ? [page] : []))
      invariant(new Set(pages).size === pages.length, `a page of ${kind} has one owner`)
      invariant(
        pages.length === marked.length && pages.every((page) => marked.includes(page)),
        `pages of ${kind} are accounted for`,
      )
      invariant(!pages.includes(ZERO_PAGE), 'the zero page is nobody’s')
    }
  }

  #windowTensors(kind: string, { firstPage, numTiles, pagesPerTile }: PageWindow): readonly Tensor[] {
    const { inputs, width } = this.#kind(kind)
    const pageElements = PAGE_RANK * width
    const dims = [pagesPerTile === 0 ? 1 : numTiles, pagesPerTile * PAGE_RANK, width]
    return inputs.map((input) => {
      const array = this.#arrays.get(input) ?? new Float32Array(0)
      const end = firstPage + (pagesPerTile === 0 ? 0 : numTiles * pagesPerTile)
      return new Tensor('float32', array.subarray(firstPage * pageElements, end * pageElements), dims)
    })
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

  /** One array for all layers of a kind: V8 collects garbage at every large allocation, which took a second for one each. */
  #reserve(kind: PageKind): void {
    const { inputs, width } = kind
    const numPages = this.#capacityOf(kind) + 1
    const layerElements = numPages * PAGE_RANK * width
    const all = new Float32Array(inputs.length * layerElements)
    inputs.forEach((input, i) => {
      const array = all.subarray(i * layerElements, (i + 1) * layerElements)
      this.#arrays.set(input, array)
      this.#paged.set(input, new Tensor('float32', array, [numPages, PAGE_RANK * width]))
    })
  }

  #capacityOf({ bytesPerPage }: PageKind): number {
    return Math.floor(this.#budgetBytes / bytesPerPage)
  }

  #arrayOf(input: string): { array: Float32Array; width: number } {
    const array = this.#arrays.get(input)
    invariant(array !== undefined, `the arena has an array ${input}`)
    return { array, width: (this.#paged.get(input)?.dims[1] as number) / PAGE_RANK }
  }

  #kind(name: string): PageKind {
    const kind = this.#kinds.get(name)
    invariant(kind !== undefined, `the arena has pages of ${name}`)
    return kind
  }
}

interface RowRun {
  /** Row of the source. */
  readonly from: number
  /** Row of the arena. */
  readonly to: number
  readonly length: number
}

/** Rows [firstRow, firstRow + numRows) of pages in order, as runs that are contiguous in the arena. */
function runsOf(pages: readonly number[], firstRow: number, numRows: number): RowRun[] {
  const runs: RowRun[] = []
  for (let done = 0; done < numRows; ) {
    const row = firstRow + done
    const offset = row % PAGE_RANK
    const to = at(pages, (row - offset) / PAGE_RANK) * PAGE_RANK + offset
    const length = Math.min(PAGE_RANK - offset, numRows - done)
    const last = runs.at(-1)
    if (last !== undefined && last.to + last.length === to) runs[runs.length - 1] = { ...last, length: last.length + length }
    else runs.push({ from: done, to, length })
    done += length
  }
  return runs
}

function isSameWindow(a: PageWindow, b: PageWindow): boolean {
  return a.firstPage === b.firstPage && a.numTiles === b.numTiles && a.pagesPerTile === b.pagesPerTile
}
