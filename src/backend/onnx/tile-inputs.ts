// Feeds what tile-plan.ts decided, as graph-linear.ts reads it.

import { at } from '../../core/invariant.ts'
import { adaptedGroups, type DecoderLayout, type LinearGroup } from './decoder-layout.ts'
import type { Feeds } from './feeds.ts'
import { groupKind, PAGE_RANK, partKind } from './graph-linear.ts'
import { type PageArena, ZERO_PAGE } from './page-arena.ts'
import type { GatheredPlan, Tile, TilePlan, WindowPlan } from './tile-plan.ts'

export class TileInputs {
  /** One group of each kind: page numbers are shared by all layers. */
  readonly #groups: readonly LinearGroup[]
  readonly #arena: PageArena

  constructor(layout: DecoderLayout, arena: PageArena) {
    const kinds = new Map(adaptedGroups(layout).map((group) => [groupKind(group), group]))
    this.#groups = [...kinds.values()]
    this.#arena = arena
  }

  feed(feeds: Feeds, plan: TilePlan, numTokens: number): void {
    if (plan.source === 'gathered') this.#feedGathered(feeds, plan, numTokens)
    else this.#feedDirect(feeds, plan, numTokens)
  }

  #feedDirect(feeds: Feeds, plan: WindowPlan, numTokens: number): void {
    const { tiles, tileRows, numTiles, windows, baseRows } = plan
    feedRows(feeds, tiles, numTiles, tileRows)
    const isAdapted = feeds.bool('tile.isAdapted', [numTokens, 1]).fill(1)
    const ofToken = feeds.int('tile.ofToken', [numTokens])
    for (const row of baseRows) {
      isAdapted[row] = 0
      ofToken[row] = 0
    }
    setRows(ofToken, tiles, tileRows)
    const nothing = { firstPage: 0, numTiles: 0, pagesPerTile: 0 }
    for (const group of this.#groups) {
      const kind = groupKind(group)
      this.#arena.feedWindow(feeds, `${kind}.a`, windows.get(`${kind}.a`) ?? nothing)
      const counts = group.parts.map(({ site }) => {
        const window = windows.get(`${partKind(site)}.b`) ?? nothing
        this.#arena.feedWindow(feeds, `${partKind(site)}.b`, window)
        return window.pagesPerTile
      })
      feedRanks(feeds, kind, counts)
    }
  }

  #feedGathered(feeds: Feeds, plan: GatheredPlan, numTokens: number): void {
    const { tileRows, baseRows } = plan
    const tiles = new Map<number, Tile>(plan.tiles.entries())
    // Rows without adapter share one row of a last tile, whose pages are all zero.
    const numTiles = plan.tiles.length + (baseRows.length > 0 ? 1 : 0)
    const rows = feedRows(feeds, tiles, numTiles, tileRows)
    const ofToken = feeds.int('tile.ofToken', [numTokens])
    for (const row of baseRows) {
      ofToken[row] = plan.tiles.length * tileRows
      rows[plan.tiles.length * tileRows] = row
    }
    setRows(ofToken, tiles, tileRows)
    for (const group of this.#groups) this.#feedPageTables(feeds, group, plan.tiles, numTiles)
    this.#arena.feedPages(feeds)
  }

  #feedPageTables(feeds: Feeds, group: LinearGroup, tiles: readonly Tile[], numTiles: number): void {
    const kind = groupKind(group)
    const parts = group.parts.map(({ site }) => partKind(site))
    const counts = parts.map((part) => mostPages(tiles, part))
    const rowPages = counts.reduce((sum, count) => sum + count, 0)
    const aPages = feeds.int(`tile.pages.${kind}.a`, [numTiles, rowPages]).fill(ZERO_PAGE)
    let firstPage = 0
    parts.forEach((part, index) => {
      const count = at(counts, index)
      const bPages = feeds.int(`tile.pages.${part}.b`, [numTiles, count]).fill(ZERO_PAGE)
      tiles.forEach(({ resident }, tile) => {
        resident.pages.get(`${part}.b`)?.forEach((page, i) => {
          bPages[tile * count + i] = page
        })
        resident.pagesOfPart.get(part)?.forEach((page, i) => {
          aPages[tile * rowPages + firstPage + i] = page
        })
      })
      firstPage += count
    })
    feedRanks(feeds, kind, counts)
  }
}

/** Token row of each tile row; rows that pad a tile repeat token 0, and nobody reads their result. */
function feedRows(feeds: Feeds, tiles: ReadonlyMap<number, Tile>, numTiles: number, tileRows: number): Int32Array {
  const rows = feeds.int('tile.rows', [numTiles, tileRows]).fill(0)
  for (const [index, tile] of tiles) rows.set(tile.rows, index * tileRows)
  return rows
}

function setRows(ofToken: Int32Array, tiles: ReadonlyMap<number, Tile>, tileRows: number): void {
  for (const [index, tile] of tiles) {
    tile.rows.forEach((row, i) => {
      ofToken[row] = index * tileRows + i
    })
  }
}

function feedRanks(feeds: Feeds, kind: string, pageCounts: readonly number[]): void {
  if (pageCounts.length === 1) return
  const ranks = feeds.long(`tile.ranks.${kind}`, [pageCounts.length])
  pageCounts.forEach((count, index) => {
    ranks[index * 2] = count * PAGE_RANK
    ranks[index * 2 + 1] = 0
  })
}

/** At least one: the tile of rows without adapter needs a zero page. */
function mostPages(tiles: readonly Tile[], part: string): number {
  return tiles.reduce((most, { resident }) => Math.max(most, resident.pages.get(`${part}.b`)?.length ?? 0), 1)
}
