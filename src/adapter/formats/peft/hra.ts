// HRA (arXiv:2405.17484): W' = W · Q with Q = Π (I − 2 v vᵀ), v the normalised columns of `hra_u` from left to right, or, with
// `apply_GS`, of their orthonormal basis. The product of reflections has the compact form Q = I − V T Vᵀ (Bischof and Van Loan
// 1987), hence ΔW = −(W V T) Vᵀ: low rank with A = Vᵀ and a B that is folded with the base weight here.

import type { ModuleInfo } from '../../../model/module-map.ts'
import { type LinearKind, type LinearTargets, openTargets, QUERY_AND_VALUE } from './linear-kind.ts'
import { product, productTransposed } from './matrix-product.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { readSize } from './rank.ts'

const HRA: LinearKind = {
  trainingKeys: ['init_weights'],
  defaultTargets: QUERY_AND_VALUE,
  targetedBias: 'hra_only',
  takesConv1d: false,
}

/** Below this share of its length a column lies in the span of those before it, and its direction is rounding noise. */
const MINIMUM_INDEPENDENT_SHARE = 1e-5

export function compileHra(context: PeftContext): PeftScope {
  const rank = readSize(context, 'r')
  const isOrthogonal = context.config.flag('apply_GS')
  const targets = openTargets(context, HRA)
  for (const module of targets.modules) compileModule(context, targets, module, rank, isOrthogonal)
  return EVERYWHERE
}

function compileModule(
  context: PeftContext,
  targets: LinearTargets,
  module: ModuleInfo,
  rank: number,
  isOrthogonal: boolean,
): void {
  const { sites, tensors, refuse, warnings } = context
  const { path, inFeatures } = module
  const stored = tensors.shape(`${path}.hra_u`)
  if (stored?.length === 2 && stored[1] !== rank)
    throw refuse('r', `the config gives ${path}.hra_u rank ${rank}, the file has rank ${stored[1]}`)
  const { values, key } = tensors.require(`${path}.hra_u`, [inFeatures, rank])
  const columns = transposed(values, inFeatures, rank)
  if (isOrthogonal && !orthogonalize(columns, rank)) {
    throw refuse(key, 'has linearly dependent columns, which leaves apply_GS without a result')
  }
  const isReflection = normalize(columns, rank)
  if (isReflection.includes(false)) warnings.push(`${path}: a column of hra_u is all zero and reflects nothing`)
  const a = Float32Array.from(columns)
  const vt = compactFactor(columns, rank)
  const wv = productTransposed(targets.weightOf(module), columns, inFeatures)
  const b = Float32Array.from(product(wv, vt, rank), (value) => -value)
  sites.addLowRank(module, { rank, scale: 1, a, b, biasB: null })
}

/** T [rank, rank], upper triangular, of Q = I − V T Vᵀ for unit (or zero) vectors in the rows of `vectors`. */
export function compactFactor(vectors: Float64Array, rank: number): Float64Array {
  const width = vectors.length / rank
  const factor = new Float64Array(rank * rank)
  for (let k = 0; k < rank; k++) {
    const overlaps = productTransposed(vectors.subarray(0, k * width), vectors.subarray(k * width, (k + 1) * width), width)
    for (let i = 0; i < k; i++) {
      let sum = 0
      for (let j = i; j < k; j++) sum += (factor[i * rank + j] as number) * (overlaps[j] as number)
      factor[i * rank + k] = -2 * sum
    }
    factor[k * rank + k] = 2
  }
  return factor
}

/** Makes each row orthogonal to those before it, which are normalised on the way; false where that leaves nothing of one. */
function orthogonalize(rows: Float64Array, count: number): boolean {
  const width = rows.length / count
  for (let k = 0; k < count; k++) {
    const row = rows.subarray(k * width, (k + 1) * width)
    const length = Math.sqrt(dot(row, row))
    for (let j = 0; j < k; j++) {
      const other = rows.subarray(j * width, (j + 1) * width)
      const share = dot(row, other)
      for (let i = 0; i < width; i++) row[i] = (row[i] as number) - share * (other[i] as number)
    }
    if (Math.sqrt(dot(row, row)) <= length * MINIMUM_INDEPENDENT_SHARE) return false
    normalize(row, 1)
  }
  return true
}

/** Scales each row to length 1; false for a row that is all zero. */
function normalize(rows: Float64Array, count: number): boolean[] {
  const width = rows.length / count
  return Array.from({ length: count }, (_, k) => {
    const row = rows.subarray(k * width, (k + 1) * width)
    const length = Math.sqrt(dot(row, row))
    if (length === 0) return false
    for (let i = 0; i < width; i++) row[i] = (row[i] as number) / length
    return true
  })
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += (a[i] as number) * (b[i] as number)
  return sum
}

/** [rows, columns] to [columns, rows], in float64. */
function transposed(values: Float32Array, rows: number, columns: number): Float64Array {
  const out = new Float64Array(values.length)
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) out[column * rows + row] = values[row * columns + column] as number
  }
  return out
}
