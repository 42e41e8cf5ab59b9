// Decides how the adapter rows of a step become tiles, and whether the arena can be read in place.

import { NO_ADAPTER_SLOT } from '../../core/ids.ts'
import { at } from '../../core/invariant.ts'
import type { StepPlan } from '../../core/step-plan.ts'
import type { PageWindow } from './page-arena.ts'
import type { ResidentAdapter, ResidentAdapters } from './resident-adapters.ts'

/** Rows of one adapter against its weights. */
export interface Tile {
  readonly resident: ResidentAdapter
  readonly rows: readonly number[]
}

export interface WindowPlan {
  readonly source: 'aligned' | 'direct'
  readonly tileRows: number
  readonly numTiles: number
  /** By index in the window; tiles between them belong to adapters that have no row in this step. */
  readonly tiles: ReadonlyMap<number, Tile>
  readonly windows: ReadonlyMap<string, PageWindow>
  readonly baseRows: readonly number[]
}

export interface GatheredPlan {
  readonly source: 'gathered'
  readonly tileRows: number
  readonly tiles: readonly Tile[]
  readonly baseRows: readonly number[]
}

export type TilePlan = WindowPlan | GatheredPlan

/** Rows a gathered tile, where adapters have many rows (prompt chunks): the copy of the weights is then small beside the product. */
const GATHERED_TILE_ROWS = 16

/** Up to as many rows of one adapter are tiles of one row: a matrix-vector product reads weights without packing them. */
const MAX_SINGLE_ROWS = 4

/**
 * Cost of one tile, of one more row in it, and of copying its weights first, in microseconds a megabyte of adapter (measured
 * on rank 16 of a 135M model: 2.0 ms a tile in place, 5 ms gathered, 0.25 ms a row, on one core).
 */
const TILE_COST = 100
const GATHER_COST = 150
const ROW_COST = 12

/** Null where no row of the step has a low-rank update. */
export function planTiles(plan: StepPlan, adapters: ResidentAdapters): TilePlan | null {
  const rowsOf = new Map<ResidentAdapter, number[]>()
  const baseRows: number[] = []
  for (let row = 0; row < plan.numTokens; row++) {
    const slot = plan.adapterSlotOfToken[row] as number
    const resident = slot === NO_ADAPTER_SLOT ? null : adapters.get(slot)
    if (resident === null || !resident.hasLowRank) {
      baseRows.push(row)
      continue
    }
    const rows = rowsOf.get(resident)
    if (rows === undefined) rowsOf.set(resident, [row])
    else rows.push(row)
  }
  if (rowsOf.size === 0) return null
  const gathered = planGathered(rowsOf, baseRows)
  const window = planWindow(plan, rowsOf, baseRows)
  if (window === null) return gathered
  const windowCost = window.numTiles * (TILE_COST + ROW_COST * window.tileRows)
  const gatheredCost = gathered.tiles.length * (TILE_COST + GATHER_COST + ROW_COST * gathered.tileRows)
  return windowCost <= gatheredCost ? window : gathered
}

function planGathered(rowsOf: ReadonlyMap<ResidentAdapter, readonly number[]>, baseRows: readonly number[]): GatheredPlan {
  const most = mostRows(rowsOf)
  const tileRows = most <= MAX_SINGLE_ROWS ? 1 : Math.min(most, GATHERED_TILE_ROWS)
  const tiles: Tile[] = []
  for (const [resident, rows] of rowsOf) {
    for (let i = 0; i < rows.length; i += tileRows) tiles.push({ resident, rows: rows.slice(i, i + tileRows) })
  }
  return { source: 'gathered', tileRows, tiles, baseRows }
}

/** Null where the step's adapters do not lie in the arena like elements of one array. */
function planWindow(
  plan: StepPlan,
  rowsOf: ReadonlyMap<ResidentAdapter, readonly number[]>,
  baseRows: readonly number[],
): WindowPlan | null {
  const residents = [...rowsOf.keys()]
  const indexOf = new Map<ResidentAdapter, number>()
  const windows = new Map<string, PageWindow>()
  let numTiles = 1
  for (const [kind, { length: pagesPerTile }] of at(residents, 0).pages) {
    const firstPages = residents.map(({ pages }) => firstOfRun(pages.get(kind) ?? [], pagesPerTile))
    if (firstPages.includes(null)) return null
    const firstPage = Math.min(...firstPages.map(Number))
    for (const [i, resident] of residents.entries()) {
      const index = (Number(firstPages[i]) - firstPage) / pagesPerTile
      if (!Number.isInteger(index) || (indexOf.get(resident) ?? index) !== index) return null
      indexOf.set(resident, index)
      numTiles = Math.max(numTiles, index + 1)
    }
    windows.set(kind, { firstPage, numTiles: 0, pagesPerTile })
  }
  if (residents.some(({ pages }) => pages.size !== windows.size)) return null
  const tileRows = mostRows(rowsOf)
  const tiles = new Map(
    residents.map((resident) => [indexOf.get(resident) ?? 0, { resident, rows: rowsOf.get(resident) ?? [] }]),
  )
  return {
    source: isAligned(plan, tiles) ? 'aligned' : 'direct',
    tileRows,
    numTiles,
    tiles,
    windows: new Map([...windows].map(([kind, window]) => [kind, { ...window, numTiles }])),
    baseRows,
  }
}

/** Decode only, like the graph: a step with chunks has other costs than a few copies of rows. */
function isAligned({ numTokens, numSeqs }: StepPlan, tiles: ReadonlyMap<number, Tile>): boolean {
  if (numTokens !== numSeqs || tiles.size !== numTokens) return false
  return [...tiles].every(([index, { rows }]) => rows.length === 1 && rows[0] === index)
}

/** First page of a run of exactly `length` consecutive pages, else null. */
function firstOfRun(pages: readonly number[], length: number): number | null {
  const first = pages[0]
  if (first === undefined || pages.length !== length) return null
  return pages.every((page, i) => page === first + i) ? first : null
}

function mostRows(rowsOf: ReadonlyMap<ResidentAdapter, readonly number[]>): number {
  return Math.max(...[...rowsOf.values()].map(({ length }) => length))
}
