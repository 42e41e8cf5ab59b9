// Shrink and expand against float64: ranks 1 to 256 side by side in one launch, runs of odd lengths, rows without adapters,
// inputs that fill no whole load.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { CudaDtype } from '../../src/backend/cuda/dtype.ts'
import { relativeError } from '../support/golden.ts'
import { GPU_PROBLEM } from '../support/gpu.ts'
import { KernelBench, rounded } from '../support/gpu-kernels.ts'
import { createRandom, randomArray } from '../support/random-adapter.ts'

/** By rounding of what is stored: s stays float32, z is rounded once. */
const TOLERANCE = { float32: 1e-5, float16: 1e-3, bfloat16: 5e-3 } as const

interface Run {
  readonly numRows: number
  /** Of each part; none = rows of the base model. */
  readonly ranks: readonly number[]
}

interface Case {
  readonly numIn: number
  readonly widths: readonly number[]
  readonly runs: readonly Run[]
  /** Columns of one split of the shrink. */
  readonly columnsPerSplit: number
  readonly shrink: string
  readonly expand: string
  readonly tileRows: number
}

const run = (numRows: number, ...ranks: number[]): Run => ({ numRows, ranks })

const CASES: Readonly<Record<string, Case>> = {
  'three parts, ranks 1 to 256, short runs': {
    numIn: 1000,
    widths: [1032, 8, 24],
    runs: [run(1, 1, 1, 1), run(3), run(16, 16, 16, 16), run(17, 5, 0, 33), run(2, 256, 7, 100), run(15, 0, 0, 2)],
    columnsPerSplit: 512,
    shrink: 'shrink_many',
    expand: 'expand',
    tileRows: 16,
  },
  'one part, single rows': {
    numIn: 4096,
    widths: [2056],
    runs: [run(1, 16), run(1, 8), run(2), run(1, 40), run(1, 1), run(1, 0)],
    columnsPerSplit: 896,
    shrink: 'shrink_one',
    expand: 'expand_single',
    tileRows: 16,
  },
  'two parts, long runs': {
    numIn: 264,
    widths: [40, 48],
    runs: [run(130, 24, 3), run(1), run(64, 64, 64), run(63, 1, 128)],
    columnsPerSplit: 128,
    shrink: 'shrink_long',
    expand: 'expand',
    tileRows: 64,
  },
}

if (GPU_PROBLEM === null) {
  for (const [name, each] of Object.entries(CASES)) {
    for (const dtype of ['float32', 'float16', 'bfloat16'] as const) test(`${name}, ${dtype}`, () => check(each, dtype))
  }
}

const SITE_EDIT_WORDS = 6 // of eight bytes
const RECORD_WORDS = 23
const SHRINK_THREADS = 128
const EXPAND_COLUMNS = 1024

function check(each: Case, dtype: CudaDtype): void {
  using bench = new KernelBench(dtype)
  const random = createRandom(each.numIn)
  const { numIn, widths, runs } = each
  const numRows = runs.reduce((sum, { numRows: count }) => sum + count, 0)
  const numOut = widths.reduce((sum, width) => sum + width, 0)
  const x = rounded(dtype, randomArray(random, numRows * numIn, 1))
  const z = rounded(dtype, randomArray(random, numRows * numOut, 1))
  const expected = Float64Array.from(z)
  const tiles: bigint[] = []
  let firstRow = 0
  for (const { numRows: count, ranks } of runs) {
    if (ranks.length > 0) {
      const factors = ranks.map((rank, part) => ({
        rank,
        width: widths[part]!,
        a: rounded(dtype, randomArray(random, rank * numIn, 0.1)),
        b: rounded(dtype, randomArray(random, rank * widths[part]!, 0.1)),
      }))
      const record = writeRecord(bench, factors)
      for (let start = 0; start < count; start += each.tileRows) {
        const rows = BigInt(Math.min(each.tileRows, count - start))
        tiles.push(BigInt(record), BigInt(firstRow + start) | (rows << 32n))
      }
      for (let row = firstRow; row < firstRow + count; row++) addExpected(expected, { x, numIn, numOut, row }, factors)
    }
    firstRow += count
  }
  const numTiles = tiles.length / 2
  const stride = Math.max(...runs.map(({ ranks }) => ranks.reduce((sum, rank) => sum + rank, 0)))
  const numSplits = Math.ceil(numIn / each.columnsPerSplit)
  const header = bench.words(Int32Array.of(numRows, 0, numTiles, 0, stride, 1, 0, 0))
  const tileAddress = bench.words(BigUint64Array.from(tiles))
  const scratch = bench.poisoned(numSplits * numRows * stride * 4)
  const [xAddress, zAddress] = [bench.elements(x), bench.elements(z)]
  const sites = widths.map((_, part) => part)
  bench.run(each.shrink, [numTiles + 3, numSplits], SHRINK_THREADS, (params) => {
    params
      .pointer(header)
      .pointer(header + 8)
      .pointer(tileAddress)
      .pointer(xAddress)
      .pointer(scratch)
    params.int(numIn).int(each.columnsPerSplit).int(numRows).int(widths.length).ints(sites, 3)
  })
  const numBlocks = widths.reduce((sum, width) => sum + Math.ceil(width / EXPAND_COLUMNS), 0)
  const rowGroups = each.expand === 'expand_single' ? 1 : each.tileRows / 8
  bench.run(each.expand, [numTiles + 3, numBlocks, rowGroups], SHRINK_THREADS, (params) => {
    params
      .pointer(header)
      .pointer(header + 8)
      .pointer(tileAddress)
      .pointer(scratch)
      .pointer(zAddress)
    params.long(numOut).int(numSplits).int(numRows).int(widths.length).ints(sites, 3)
    params
      .ints(
        widths.map((_, part) => widths.slice(0, part).reduce((sum, width) => sum + width, 0)),
        3,
      )
      .ints(widths, 3)
  })
  const found = bench.readElements(zAddress, numRows * numOut)
  const error = relativeError(found, Float32Array.from(expected))
  assert.ok(error <= TOLERANCE[dtype], `relative error ${error}`)
}

interface Factor {
  readonly rank: number
  readonly width: number
  readonly a: Float32Array // [rank, in]
  readonly b: Float32Array // [rank, width]
}

/** AdapterRecord and its SiteEdits, as kernels/step.cuh lays them out. */
function writeRecord(bench: KernelBench, factors: readonly Factor[]): number {
  const record = new BigUint64Array(RECORD_WORDS + factors.length * SITE_EDIT_WORDS)
  factors.forEach(({ rank, width, a, b }, i) => {
    if (rank === 0) return
    const site = RECORD_WORDS + i * SITE_EDIT_WORDS
    record[site] = BigInt(bench.elements(a))
    record[site + 1] = BigInt(bench.elements(b))
    record[site + 5] = BigInt(rank) | (BigInt(width) << 32n)
  })
  return bench.words(record)
}

interface Row {
  readonly x: Float32Array
  readonly numIn: number
  readonly numOut: number
  readonly row: number
}

function addExpected(z: Float64Array, { x, numIn, numOut, row }: Row, factors: readonly Factor[]): void {
  let column = 0
  for (const { rank, width, a, b } of factors) {
    for (let r = 0; r < rank; r++) {
      let sum = 0
      for (let i = 0; i < numIn; i++) sum += a[r * numIn + i]! * x[row * numIn + i]!
      for (let i = 0; i < width; i++) z[row * numOut + column + i]! += sum * b[r * width + i]!
    }
    column += width
  }
}
