// The part of a base weight that its smallest singular values make up. It follows from W alone, whatever signs a decomposition chose.

import type { ModuleInfo } from '../../../model/module-map.ts'
import { product, productTransposed } from './matrix-product.ts'
import { transpose } from './module-weights.ts'
import { symmetricEigen } from './symmetric-eigen.ts'

/** tail = b · a, of rank `count`. */
export interface Tail {
  readonly a: Float64Array // [count, in]
  readonly b: Float64Array // [out, count]
}

/** Below this distance of neighbours, as a share of the largest, float32 (in which PEFT decomposes) cannot tell them apart. */
const MINIMUM_GAP = 1e-6

/**
 * The `count` smallest singular components of `weight` [out, in]; null where the next one is too close for that to mean
 * anything.
 */
export function tailOf(
  weight: Float32Array,
  { outFeatures, inFeatures }: Pick<ModuleInfo, 'outFeatures' | 'inFeatures'>,
  count: number,
): Tail | null {
  if (count === 0) return { a: new Float64Array(), b: new Float64Array() }
  const isWide = outFeatures <= inFeatures
  const size = Math.min(outFeatures, inFeatures)
  const narrow = isWide ? weight : transpose(weight, outFeatures, inFeatures)
  const eigen = symmetricEigen(productTransposed(narrow, narrow, narrow.length / size), size)
  if (eigen === null) return null
  const singular = eigen.values.map((value) => Math.sqrt(Math.max(0, value)))
  const gap = (singular[count] as number) - (singular[count - 1] as number)
  if (count < size && !(gap > MINIMUM_GAP * (singular[size - 1] as number))) return null
  const directions = eigen.vectors.slice(0, count * size)
  // W = Σ u uᵀ W over the left, or Σ W v vᵀ over the right singular vectors.
  if (isWide) return { a: product(directions, weight, outFeatures), b: transposed(directions, count, size) }
  return { a: directions, b: productTransposed(weight, directions, inFeatures) }
}

/** [rows, columns] to [columns, rows]. */
function transposed(values: Float64Array, rows: number, columns: number): Float64Array {
  const out = new Float64Array(values.length)
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) out[column * rows + row] = values[row * columns + column] as number
  }
  return out
}
