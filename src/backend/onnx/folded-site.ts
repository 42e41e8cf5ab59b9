// Rewrites the primitives of one linear into the form that graph-linear.ts computes. With s the input scale, c the factor,
// b the bias, m the output scale, t the shift and low-rank terms g_j B_j (A_j x + ...), adapter/primitive.ts defines
//
//   ((x·s) W^T · c + b + sum_j g_j (B_j A_j x + d_j)) · m + t
//     = (x·s) W^T · (c·m)  +  (b·m + t + sum_j g_j d_j·m)  +  sum_j (g_j m · B_j) A_j x
//
// and a replaced weight R is W plus the full-rank update (R - W)·(c·m) of x·s.

import type { SitePrimitives, SiteShape } from './site-primitives.ts'

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
  primitives: SitePrimitives,
  bias: Float32Array | null,
  readBase: () => Float32Array,
): FoldedLinear {
  const { vectors, lowRanks, replace } = primitives
  const inputScale = vectors.get('input-scale') ?? null
  const outputScale = vectors.get('output-scale') ?? null
  const factor = product(vectors.get('factor') ?? null, outputScale)
  const folded = lowRanks.map(({ rank, a, b, scale }) => ({
    rank,
    a,
    b: transposedB(b, rank, numOut, scale, outputScale),
  }))
  if (replace !== null) folded.push(fullRank(numIn, numOut, replace.weight, readBase(), inputScale, factor))
  return { inputScale, factor, shift: foldShift(numOut, primitives, bias, outputScale), lowRanks: folded }
}

function foldShift(
  numOut: number,
  { vectors, lowRanks }: SitePrimitives,
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

function fullRank(
  numIn: number,
  numOut: number,
  weight: Float32Array,
  base: Float32Array,
  inputScale: Float32Array | null,
  factor: Float32Array | null,
): FoldedLowRank {
  const a = new Float32Array(numIn * numIn)
  for (let i = 0; i < numIn; i++) a[i * numIn + i] = inputScale === null ? 1 : (inputScale[i] as number)
  const difference = weight.map((value, i) => value - (base[i] as number))
  return { rank: numIn, a, b: transposedB(difference, numIn, numOut, 1, factor) }
}
