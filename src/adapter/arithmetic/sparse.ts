import type { Sparse } from '../primitive.ts'

/** z[o] += Σ values[k] · x[columns[k]] over the entries of row o (SHiRA, arXiv:2406.13175; LT-SFT, arXiv:2110.07560). */
export function addSparse(z: Float32Array, { rowStarts, columns, values }: Sparse, x: Float32Array): void {
  for (let row = 0; row < z.length; row++) {
    let sum = 0
    for (let k = rowStarts[row] as number; k < (rowStarts[row + 1] as number); k++) {
      sum += (values[k] as number) * (x[columns[k] as number] as number)
    }
    z[row] = (z[row] as number) + sum
  }
}

/** The same where x is one row of a table: z += row `index` of the difference. */
export function addSparseRow(z: Float32Array, { rowStarts, columns, values }: Sparse, index: number): void {
  for (let k = rowStarts[index] as number; k < (rowStarts[index + 1] as number); k++) {
    const column = columns[k] as number
    z[column] = (z[column] as number) + (values[k] as number)
  }
}
