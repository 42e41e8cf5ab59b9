// A step plan as one block of device memory, sent in one copy:
//
//   | StepHeader | adapter of each row | of each logit row | tiles | logit tiles | ids, positions ... | block tables | given rows |
//
// What comes before the block tables lies at offsets that depend on the capacities alone, so that a graph recorded for a batch
// size finds it in every step of that size.

import { invariant } from '../../core/invariant.ts'
import { givenRuns, type StepPlan } from '../../core/step-plan.ts'
import type { DeviceBuffer, PinnedBuffer } from './buffer.ts'
import type { Device } from './device.ts'
import type { ResidentAdapter } from './resident-adapters.ts'
import type { Stream } from './stream.ts'

/** By how many rows in a row have one adapter: one at most everywhere, few, or many somewhere. */
export type TileSize = 'single' | 'short' | 'long'

/** Rows a tile may have: those of the tensor cores' smallest shape, and of the kernel for long runs. */
export const TILE_ROWS: Readonly<Record<TileSize, number>> = { single: 16, short: 16, long: 64 }

/** Up to here more blocks of few rows beat fewer reads of an adapter's weights, which the L2 cache answers. */
const LONGEST_SHORT_RUN = 128

const HEADER_INTS = 8
const TILE_INTS = 4
const POINTER_INTS = 2
const INT_BYTES = 4

/** Enough for a few hundred sequences of a few thousand tokens; grows where it is not. */
const INITIAL_BYTES = 1 << 20

export interface StepCapacity {
  readonly numTokens: number
  readonly numLogitRows: number
}

/** Device addresses. */
export interface StepAddresses {
  readonly header: number
  readonly adapters: number
  readonly logitAdapters: number
  readonly tiles: number
  readonly logitTiles: number
  readonly tokenIds: number
  readonly positions: number
  readonly slotMapping: number
  readonly seqOfRow: number
  /** Keys each row sees, itself included. */
  readonly numVisible: number
  readonly logitRows: number
  readonly blockTables: number
}

/** Rows whose linear is an adapter's own. */
export interface ReplacedRun {
  readonly adapter: ResidentAdapter
  readonly firstRow: number
  readonly numRows: number
}

export interface GivenRows {
  readonly count: number
  readonly adapters: number
  readonly rows: number
  readonly slots: number
}

/** What the adapters of a step ask of it. */
export interface StepFeatures {
  readonly editedGroups: number
  readonly scaledGroups: number
  readonly hasHeadRows: boolean
  /** Ranks a row of the shrink's scratch holds: a power of two, so that few graphs differ by it. */
  readonly shrinkStride: number
  /** Rounded up to powers of two, for the same reason; kernels read the exact counts. */
  readonly numTiles: number
  readonly numLogitTiles: number
  readonly tileSize: TileSize
  readonly replacedRuns: readonly ReplacedRun[]
  readonly replacedLogitRuns: readonly ReplacedRun[]
}

export interface PackedStep {
  readonly addresses: StepAddresses
  readonly features: StepFeatures
  readonly given: GivenRows
}

interface Run {
  readonly adapter: ResidentAdapter
  readonly firstRow: number
  readonly numRows: number
}

export class StepInputs implements Disposable {
  readonly #device: Device
  readonly #blockSize: number
  #pinned: PinnedBuffer
  #buffer: DeviceBuffer
  #words: Int32Array
  /** Counts reallocations: recorded graphs hold addresses. */
  generation = 0

  constructor(device: Device, blockSize: number) {
    this.#device = device
    this.#blockSize = blockSize
    this.#pinned = device.allocatePinned(INITIAL_BYTES)
    this.#buffer = device.allocate(INITIAL_BYTES, 'step inputs')
    this.#words = new Int32Array(this.#pinned.bytes)
  }

  /** Packs the plan and queues its copy. `use` answers the adapter of a slot, ready for this step. */
  send(plan: StepPlan, capacity: StepCapacity, stream: Stream, use: (slot: number) => ResidentAdapter): PackedStep {
    const given = givenRuns(plan, this.#blockSize)
    const numGiven = given.reduce((sum, run) => sum + run.kvSlots.length, 0)
    const tableStride = this.#tableStride(plan)
    const offsets = offsetsOf(capacity)
    const givenStart = evenUp(offsets.blockTables + plan.numSeqs * tableStride)
    this.#reserve((givenStart + numGiven * (POINTER_INTS + 2)) * INT_BYTES)
    const words = this.#words

    const adapterOfSlot = new Map<number, ResidentAdapter>()
    const adapterOf = (row: number): ResidentAdapter | null => {
      const slot = plan.adapterSlotOfToken[row] as number
      if (slot < 0) return null
      const known = adapterOfSlot.get(slot)
      if (known !== undefined) return known
      const adapter = use(slot)
      adapterOfSlot.set(slot, adapter)
      return adapter
    }
    const runs = this.#writeAdapters(offsets.adapters, plan.numTokens, adapterOf)
    const logitRuns = this.#writeAdapters(offsets.logitAdapters, plan.numLogitRows, (i) =>
      adapterOf(plan.logitRows[i] as number),
    )
    const longest = Math.max(1, ...[...runs, ...logitRuns].map(({ numRows }) => numRows))
    const tileSize = longest === 1 ? 'single' : longest <= LONGEST_SHORT_RUN ? 'short' : 'long'
    const numTiles = this.#writeTiles(offsets.tiles, runs, tileSize)
    const numLogitTiles = this.#writeTiles(offsets.logitTiles, logitRuns, tileSize)
    const features = featuresOf([...adapterOfSlot.values()], { runs, logitRuns, numTiles, numLogitTiles, tileSize })
    words.set([plan.numTokens, plan.numLogitRows, numTiles, numLogitTiles, features.shrinkStride, tableStride], 0)
    words.set(plan.tokenIds.subarray(0, plan.numTokens), offsets.tokenIds)
    words.set(plan.positions.subarray(0, plan.numTokens), offsets.positions)
    words.set(plan.slotMapping.subarray(0, plan.numTokens), offsets.slotMapping)
    words.set(plan.logitRows.subarray(0, plan.numLogitRows), offsets.logitRows)
    this.#writeSequences(plan, offsets, tableStride)

    const base = this.#buffer.address
    let at = givenStart
    for (const run of given) {
      const adapter = use(run.adapterSlot)
      invariant(adapter.virtualKind === 'prefix', `adapter slot ${run.adapterSlot} has a prefix`)
      run.kvSlots.forEach((kvSlot, i) => {
        this.#writePointer(at, adapter.slab)
        words[givenStart + numGiven * POINTER_INTS + (at - givenStart) / POINTER_INTS] = run.firstToken + i
        words[givenStart + numGiven * (POINTER_INTS + 1) + (at - givenStart) / POINTER_INTS] = kvSlot
        at += POINTER_INTS
      })
    }
    const end = givenStart + numGiven * (POINTER_INTS + 2)
    stream.upload(base, this.#pinned.address, end * INT_BYTES)
    const address = (word: number): number => base + word * INT_BYTES
    return {
      addresses: addressesOf(offsets, address),
      features,
      given: {
        count: numGiven,
        adapters: address(givenStart),
        rows: address(givenStart + numGiven * POINTER_INTS),
        slots: address(givenStart + numGiven * (POINTER_INTS + 1)),
      },
    }
  }

  [Symbol.dispose](): void {
    this.#pinned[Symbol.dispose]()
    this.#buffer[Symbol.dispose]()
  }

  /** Writes the adapter of each row; returns the runs of rows that have one. */
  #writeAdapters(offset: number, numRows: number, adapterOf: (row: number) => ResidentAdapter | null): readonly Run[] {
    const runs: Run[] = []
    let adapter: ResidentAdapter | null = null
    let firstRow = 0
    for (let row = 0; row <= numRows; row++) {
      const next = row < numRows ? adapterOf(row) : null
      if (row < numRows) this.#writePointer(offset + row * POINTER_INTS, next?.slab ?? 0)
      if (next === adapter && row < numRows) continue
      if (adapter !== null) runs.push({ adapter, firstRow, numRows: row - firstRow })
      adapter = next
      firstRow = row
    }
    return runs
  }

  #writeTiles(offset: number, runs: readonly Run[], tileSize: TileSize): number {
    const size = TILE_ROWS[tileSize]
    let numTiles = 0
    for (const { adapter, firstRow, numRows } of runs) {
      for (let start = 0; start < numRows; start += size) {
        const at = offset + numTiles++ * TILE_INTS
        this.#writePointer(at, adapter.slab)
        this.#words[at + 2] = firstRow + start
        this.#words[at + 3] = Math.min(size, numRows - start)
      }
    }
    return numTiles
  }

  #writeSequences(plan: StepPlan, offsets: StepOffsets, tableStride: number): void {
    const words = this.#words
    for (let seq = 0; seq < plan.numSeqs; seq++) {
      const start = plan.queryStart[seq] as number
      const end = plan.queryStart[seq + 1] as number
      const contextLen = plan.contextLens[seq] as number
      words.fill(seq, offsets.seqOfRow + start, offsets.seqOfRow + end)
      for (let row = start; row < end; row++) words[offsets.numVisible + row] = contextLen - (end - 1 - row)
      const source = seq * plan.maxBlocksPerSeq
      const count = Math.ceil(contextLen / this.#blockSize)
      words.set(plan.blockTables.subarray(source, source + count), offsets.blockTables + seq * tableStride)
    }
  }

  #writePointer(word: number, address: number): void {
    this.#words[word] = (address % 2 ** 32) | 0
    this.#words[word + 1] = Math.floor(address / 2 ** 32)
  }

  #tableStride(plan: StepPlan): number {
    let longest = 1
    for (let seq = 0; seq < plan.numSeqs; seq++) longest = Math.max(longest, plan.contextLens[seq] as number)
    return Math.ceil(longest / this.#blockSize)
  }

  #reserve(numBytes: number): void {
    if (numBytes <= this.#buffer.numBytes) return
    const grown = 2 ** Math.ceil(Math.log2(numBytes))
    this[Symbol.dispose]()
    this.#pinned = this.#device.allocatePinned(grown)
    this.#buffer = this.#device.allocate(grown, 'step inputs')
    this.#words = new Int32Array(this.#pinned.bytes)
    this.generation++
  }
}

type StepOffsets = Readonly<Record<keyof StepAddresses, number>>

/** In words of four bytes; pointers come first, so that they lie on their boundaries. */
function offsetsOf({ numTokens, numLogitRows }: StepCapacity): StepOffsets {
  const adapters = HEADER_INTS
  const logitAdapters = adapters + numTokens * POINTER_INTS
  const tiles = logitAdapters + numLogitRows * POINTER_INTS
  const logitTiles = tiles + numTokens * TILE_INTS
  const tokenIds = logitTiles + numLogitRows * TILE_INTS
  const positions = tokenIds + numTokens
  const slotMapping = positions + numTokens
  const seqOfRow = slotMapping + numTokens
  const numVisible = seqOfRow + numTokens
  const logitRows = numVisible + numTokens
  const blockTables = logitRows + numLogitRows
  return {
    header: 0,
    adapters,
    logitAdapters,
    tiles,
    logitTiles,
    tokenIds,
    positions,
    slotMapping,
    seqOfRow,
    numVisible,
    logitRows,
    blockTables,
  }
}

function addressesOf(offsets: StepOffsets, address: (word: number) => number): StepAddresses {
  const entries = Object.entries(offsets).map(([name, word]) => [name, address(word)] as const)
  return Object.fromEntries(entries) as unknown as StepAddresses
}

interface StepRuns {
  readonly runs: readonly Run[]
  readonly logitRuns: readonly Run[]
  readonly numTiles: number
  readonly numLogitTiles: number
  readonly tileSize: TileSize
}

function featuresOf(adapters: readonly ResidentAdapter[], step: StepRuns): StepFeatures {
  let [editedGroups, scaledGroups, maxRank, hasHeadRows, hasReplaced] = [0, 0, 1, false, false]
  for (const { features } of adapters) {
    editedGroups |= features.editedGroups
    scaledGroups |= features.scaledGroups
    maxRank = Math.max(maxRank, features.maxGroupRank)
    hasHeadRows ||= features.hasHeadRows
    hasReplaced ||= features.replacedLinears.size > 0
  }
  const replaced = (runs: readonly Run[]) =>
    hasReplaced ? runs.filter(({ adapter }) => adapter.features.replacedLinears.size > 0) : []
  return {
    editedGroups,
    scaledGroups,
    hasHeadRows,
    shrinkStride: powerOfTwo(maxRank),
    numTiles: powerOfTwo(step.numTiles),
    numLogitTiles: powerOfTwo(step.numLogitTiles),
    tileSize: step.tileSize,
    replacedRuns: replaced(step.runs),
    replacedLogitRuns: replaced(step.logitRuns),
  }
}

/** The next from `count` on; none stays none. */
function powerOfTwo(count: number): number {
  return count === 0 ? 0 : 2 ** Math.ceil(Math.log2(count))
}

/** Pointers lie on boundaries of eight bytes. */
function evenUp(words: number): number {
  return Math.ceil(words / POINTER_INTS) * POINTER_INTS
}
