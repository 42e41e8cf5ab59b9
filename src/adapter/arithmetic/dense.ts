import type { Dense } from '../primitive.ts'
import { addTo, product } from './dot.ts'

/** z += ΔW x, over the rows named or over all (FAR, arXiv:2205.00305; whatever has no smaller form). */
export function addDense(z: Float32Array, { delta, rowIds }: Dense, x: Float32Array): void {
  const sums = product(delta, x)
  if (rowIds === null) addTo(z, sums)
  else
    rowIds.forEach((row, i) => {
      z[row] = (z[row] as number) + (sums[i] as number)
    })
}

/** The same where x is one row of a table: z += row `index` of the difference. */
export function addDenseRow(z: Float32Array, { delta, rowIds }: Dense, index: number): void {
  const row = rowIds === null ? index : rowIds.indexOf(index)
  if (row >= 0) addTo(z, delta.subarray(row * z.length, (row + 1) * z.length))
}
