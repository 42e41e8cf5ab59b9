// Cuts the rows of a step into tiles of one adapter each, as graph-linear.ts reads them.

import { at } from '../../core/invariant.ts'
import type { StepPlan } from '../../core/step-plan.ts'
import { adaptedGroups, type DecoderLayout, type LinearGroup } from './decoder-layout.ts'
import type { Feeds } from './feeds.ts'
import { groupKind, PAGE_RANK, partKind } from './graph-linear.ts'
import { ZERO_PAGE } from './page-arena.ts'
import type { ResidentAdapter, ResidentAdapters } from './resident-adapters.ts'

/**
 * Rows a tile where adapters have many rows in the step (prompt chunks): enough that the copy of an adapter's weights into
 * the tile is small beside the product.
 */
const CHUNK_TILE_ROWS = 16

/** Up to as many rows of one adapter are tiles of one row: a matrix-vector product reads weights without packing them. */
const MAX_SINGLE_ROWS = 4

interface Tile {
  readonly resident: ResidentAdapter | null
  readonly rows: readonly number[]
}

export class TileInputs {
  /** One group of each kind: page numbers are shared by all layers. */
  readonly #groups: readonly LinearGroup[]
  readonly #adapters: ResidentAdapters

  constructor(layout: DecoderLayout, adapters: ResidentAdapters) {
    const kinds = new Map(adaptedGroups(layout).map((group) => [groupKind(group), group]))
    this.#groups = [...kinds.values()]
    this.#adapters = adapters
  }

  feed(feeds: Feeds, plan: StepPlan): void {
    const { tiles, tileRows } = cutTiles(plan, this.#adapters)
    const rows = feeds.int('tile.rows', [tiles.length, tileRows]).fill(0)
    const ofToken = feeds.int('tile.ofToken', [plan.numTokens])
    tiles.forEach((tile, index) => {
      tile.rows.forEach((row, i) => {
        // Rows without adapter share one row of the zero tile.
        const tileRow = tile.resident === null ? 0 : i
        rows[index * tileRows + tileRow] = row
        ofToken[row] = index * tileRows + tileRow
      })
    })
    for (const group of this.#groups) this.#feedPages(feeds, group, tiles)
    this.#adapters.arena.feed(feeds)
  }

  #feedPages(feeds: Feeds, group: LinearGroup, tiles: readonly Tile[]): void {
    const kind = groupKind(group)
    const parts = group.parts.map(({ site }) => partKind(site))
    const counts = parts.map((part) => mostPages(tiles, part))
    const rowPages = counts.reduce((sum, count) => sum + count, 0)
    const aPages = feeds.int(`tile.pages.${kind}.a`, [tiles.length, rowPages]).fill(ZERO_PAGE)
    let firstPage = 0
    parts.forEach((part, index) => {
      const count = at(counts, index)
      const bPages = feeds.int(`tile.pages.${part}.b`, [tiles.length, count]).fill(ZERO_PAGE)
      tiles.forEach(({ resident }, tile) => {
        resident?.pages.get(`${part}.b`)?.forEach((page, i) => {
          bPages[tile * count + i] = page
        })
        resident?.pagesOfPart.get(part)?.forEach((page, i) => {
          aPages[tile * rowPages + firstPage + i] = page
        })
      })
      firstPage += count
    })
    if (parts.length === 1) return
    const ranks = feeds.long(`tile.ranks.${kind}`, [parts.length])
    counts.forEach((count, index) => {
      ranks[index * 2] = count * PAGE_RANK
      ranks[index * 2 + 1] = 0
    })
  }
}

/** At least one, so that no product has an empty inner dimension. */
function mostPages(tiles: readonly Tile[], part: string): number {
  return tiles.reduce((most, { resident }) => Math.max(most, resident?.pages.get(`${part}.b`)?.length ?? 0), 1)
}

function cutTiles(plan: StepPlan, adapters: ResidentAdapters): { tiles: readonly Tile[]; tileRows: number } {
  const rowsOf = new Map<ResidentAdapter | null, number[]>()
  for (let row = 0; row < plan.numTokens; row++) {
    const resident = adapters.find(plan.adapterSlotOfToken[row] as number)
    const key = resident?.hasLowRank ? resident : null
    const rows = rowsOf.get(key)
    if (rows === undefined) rowsOf.set(key, [row])
    else rows.push(row)
  }
  const most = Math.max(...[...rowsOf].map(([resident, rows]) => (resident === null ? 0 : rows.length)))
  const tileRows = most <= MAX_SINGLE_ROWS ? 1 : Math.min(most, CHUNK_TILE_ROWS)
  const tiles: Tile[] = []
  for (const [resident, rows] of rowsOf) {
    if (resident === null) tiles.push({ resident, rows })
    else for (let i = 0; i < rows.length; i += tileRows) tiles.push({ resident, rows: rows.slice(i, i + tileRows) })
  }
  return { tiles, tileRows }
}
