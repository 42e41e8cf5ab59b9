// DoRA (arXiv:2402.09353) as PEFT serves it: W' = (m / ‖W + s·BA‖) ⊙ (W + s·BA). The norm depends on the base weight and on
// nothing of the request, so it is computed once, here: a factor on the base product, and B with its rows scaled alike.
//
// Norms sum in float64 over the updated weight itself: expanding the square cancels where the update undoes the weight.

import { transpose } from './module-weights.ts'

/** A low-rank update of one site; `scale` is already resolved. */
interface Delta {
  readonly a: Float32Array // [rank, in]
  readonly b: Float32Array // [out, rank]
  readonly rank: number
  readonly scale: number
}

/** Ranks added in one pass over a row of W: the pass is bound by loads and stores of that row (measured 2.7x faster than 1). */
const RANKS_PER_PASS = 4

/** m over the L2 norm of each row of W + s·BA, for `weight` [rows, in] and `magnitude` [rows]. */
export function rowFactors(weight: Float32Array, magnitude: Float32Array, delta: Delta): Float32Array {
  const factors = new Float32Array(magnitude.length)
  forEachUpdatedRow(weight, delta, (o, row) => {
    let squares = 0
    for (let i = 0; i < row.length; i++) squares += (row[i] as number) * (row[i] as number)
    factors[o] = (magnitude[o] as number) / Math.sqrt(squares)
  })
  return factors
}

/**
 * The embedding form: the norm of each hidden dimension over the vocabulary.
 * `weight` [vocab, hidden], A [rank, vocab], B [hidden, rank], `magnitude` [hidden].
 */
export function columnFactors(weight: Float32Array, magnitude: Float32Array, delta: Delta): Float32Array {
  const { a, b, rank } = delta
  const squares = new Float64Array(magnitude.length)
  // Seen by rows of tokens the update is Aᵀ·Bᵀ.
  const byToken = { ...delta, a: transpose(b, magnitude.length, rank), b: transpose(a, rank, a.length / rank) }
  forEachUpdatedRow(weight, byToken, (_, row) => {
    for (let d = 0; d < row.length; d++) squares[d] = (squares[d] as number) + (row[d] as number) * (row[d] as number)
  })
  return magnitude.map((size, d) => size / Math.sqrt(squares[d] as number))
}

/** diag(factors) · B, in a new array. */
export function scaleRows(b: Float32Array, factors: Float32Array, rank: number): Float32Array {
  return b.map((value, i) => value * (factors[Math.floor(i / rank)] as number))
}

/** Visits the rows of W + s·BA, one after the other in one array. */
function forEachUpdatedRow(weight: Float32Array, delta: Delta, visit: (index: number, row: Float64Array) => void): void {
  const { rank, scale } = delta
  const width = delta.a.length / rank
  const numRows = delta.b.length / rank
  const numPasses = Math.ceil(rank / RANKS_PER_PASS)
  // Missing ranks of the last pass are zero.
  const a = new Float64Array(numPasses * RANKS_PER_PASS * width)
  a.set(delta.a)
  const b = new Float64Array(numPasses * RANKS_PER_PASS)
  const row = new Float64Array(width)
  for (let o = 0; o < numRows; o++) {
    row.set(weight.subarray(o * width, (o + 1) * width))
    for (let k = 0; k < rank; k++) b[k] = scale * (delta.b[o * rank + k] as number)
    for (let pass = 0; pass < numPasses; pass++) addRanks(row, a, b, pass * RANKS_PER_PASS)
    visit(o, row)
  }
}

/** row += Σ b[k] · a[k] over RANKS_PER_PASS ranks from `first`. */
function addRanks(row: Float64Array, a: Float64Array, b: Float64Array, first: number): void {
  const width = row.length
  const b0 = b[first] as number
  const b1 = b[first + 1] as number
  const b2 = b[first + 2] as number
  const b3 = b[first + 3] as number
  const start = first * width
  for (let i = 0; i < width; i++) {
    const at = start + i
    const low = b0 * (a[at] as number) + b1 * (a[at + width] as number)
    const high = b2 * (a[at + 2 * width] as number) + b3 * (a[at + 3 * width] as number)
    row[i] = (row[i] as number) + low + high
  }
}
