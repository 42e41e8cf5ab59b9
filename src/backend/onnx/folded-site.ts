// Rewrites the primitives of one linear into the form that graph-linear.ts computes. With s the input scale, c the factor,
// b the bias, m the output scale, t the shift and low-rank terms g_j B_j (A_j x + ...), adapter/primitive.ts defines
//
//   ((x·s) W^T · c + b + sum_j g_j (B_j A_j x + d_j)) · m + t
//     = (x·s) W^T · (c·m)  +  (b·m + t + sum_j g_j d_j·m)  +  sum_j (g_j m · B_j) A_j x
//
// and a replaced weight R is W plus the full-rank update (R - W)·(c·m) of x·s, of (x Q)·s behind a rotation Q. Where other updates or
// a rotation of pairs come before m and t, those two are ops of the graph (extras/bind-extras.ts) and 1 and 0 here.

import { rotated } from '../../adapter/arithmetic/rotate.ts'
import type { Rotate } from '../../adapter/primitive.ts'
import type { SitePrimitives } from '../../adapter/site-primitives.ts'
import type { SiteShape } from '../../adapter/site-shapes.ts'

/** One low-rank term: rows of A [rank, in], and of B transposed [rank, out] with every scale inside. */
export interface FoldedLowRank {
  readonly rank: number
  readonly a: Float32Array
  readonly b: Float32Array // [rank, out]
}

export interface FoldedLinear {
  readonly inputScale: Float32Array | null // [in]
  readonly factor: Float32Array | null // [out]
  /** With the base bias inside. */
  readonly shift: Float32Array | null // [out]
  readonly lowRanks: readonly FoldedLowRank[]
}

/** `readBase` is asked for the base weight only where the adapter replaces it. `bias` is the base's. */
export function foldLinear(
  { numOut, numIn }: SiteShape,
  primitives: Pick<SitePrimitives, 'vectors' | 'lowRanks' | 'replace' | 'rotate'>,
  bias: Float32Array | null,
  readBase: () => Float32Array,
): FoldedLinear {
  const { vectors, lowRanks, replace, rotate } = primitives
  const inputScale = vectors.get('input-scale') ?? null
  const outputScale = vectors.get('output-scale') ?? null
  const factor = product(vectors.get('factor') ?? null, outputScale)
  const folded = lowRanks.map(({ rank, a, b, scale }) => ({
    rank,
    a,
    b: transposedB(b, rank, numOut, scale, outputScale),
  }))
  if (replace !== null) {
    const difference = replace.weight.slice()
    readBase().forEach((value, i) => {
      difference[i] = (difference[i] as number) - value
    })
    const b = transposedB(difference, numIn, numOut, 1, factor)
    folded.push({ rank: numIn, a: scaledInput(numIn, inputScale, rotate), b })
  }
  return { inputScale, factor, shift: foldShift(numOut, primitives, bias, outputScale), lowRanks: folded }
}

function foldShift(
  numOut: number,
  { vectors, lowRanks }: Pick<SitePrimitives, 'vectors' | 'lowRanks'>,
  baseBias: Float32Array | null,
  outputScale: Float32Array | null,
): Float32Array | null {
  const bias = vectors.get('bias') ?? baseBias
  const shift = vectors.get('shift')
  const biasesOfB = lowRanks.filter(({ biasB }) => biasB !== null)
  const isBase = !vectors.has('bias') && shift === undefined && biasesOfB.length === 0
  if (isBase && (baseBias === null || outputScale === null)) return null
  return Float32Array.from({ length: numOut }, (_, i) => {
    let value = bias?.[i] ?? 0
    for (const { biasB, scale } of biasesOfB) value += scale * (biasB?.[i] ?? 0)
    return value * (outputScale?.[i] ?? 1) + (shift?.[i] ?? 0)
  })
}

function product(a: Float32Array | null, b: Float32Array | null): Float32Array | null {
  if (a === null || b === null) return a ?? b
  return a.map((value, i) => value * (b[i] as number))
}

function transposedB(
  b: Float32Array,
  rank: number,
  numOut: number,
  scale: number,
  outputScale: Float32Array | null,
): Float32Array {
  const rows = new Float32Array(rank * numOut)
  for (let r = 0; r < rank; r++) {
    const start = r * numOut
    for (let out = 0; out < numOut; out++) rows[start + out] = scale * (b[out * rank + r] as number)
    if (outputScale === null) continue
    for (let out = 0; out < numOut; out++) rows[start + out] = (rows[start + out] as number) * (outputScale[out] as number)
  }
  return rows
}

/** The matrix whose product with x is (x Q) · inputScale. [in, in] */
function scaledInput(numIn: number, inputScale: Float32Array | null, rotate: Rotate | null): Float32Array {
  const a = new Float32Array(numIn * numIn)
  for (let column = 0; column < numIn; column++) {
    const unit = new Float32Array(numIn)
    unit[column] = 1
    const turned = rotate === null ? unit : rotated(unit, rotate)
    for (let row = 0; row < numIn; row++) a[row * numIn + column] = (turned[row] as number) * (inputScale?.[row] ?? 1)
  }
  return a
}
