// Orthogonal matrices from skew-symmetric ones, Q = −Qᵀ, in float64: the result multiplies a whole weight.

import { product } from './matrix-product.ts'

/** How the last term of the series counts. */
export type SeriesEnd = 'single' | 'doubled'

/** The Cayley transform R = (I − Q)(I + Q)⁻¹ (arXiv:2306.07280), [size, size]. */
export function cayley(skew: Float64Array, size: number): Float64Array {
  const left = skew.slice()
  const right = skew.map((value) => -value)
  for (let i = 0; i < size; i++) {
    left[i * (size + 1)] = 1
    right[i * (size + 1)] = 1
  }
  // Both factors are polynomials of Q and commute, so R solves (I + Q) R = I − Q. The symmetric part of I + Q is I, hence every
  // pivot is at least 1.
  for (let pivot = 0; pivot < size; pivot++) {
    scaleRow(left, pivot, size, 1 / (left[pivot * (size + 1)] as number), right)
    for (let row = 0; row < size; row++) {
      const factor = left[row * size + pivot] as number
      if (row === pivot || factor === 0) continue
      for (let i = 0; i < size; i++) {
        left[row * size + i] = (left[row * size + i] as number) - factor * (left[pivot * size + i] as number)
        right[row * size + i] = (right[row * size + i] as number) - factor * (right[pivot * size + i] as number)
      }
    }
  }
  return right
}

/**
 * The truncated Neumann series of (I + Q)(I − Q)⁻¹ (arXiv:2506.19847), which is the transpose of what `cayley` gives:
 * I + 2Q + 2Q² + … with 2Q^(terms−1) last (`doubled`), or with Q^(terms−1) last from four terms on (`single`). Three terms are
 * computed as four where the end is single: a slip of the reference that such files were trained with.
 */
export function cayleySeries(skew: Float64Array, size: number, terms: number, end: SeriesEnd): Float64Array {
  const sum = new Float64Array(size * size)
  for (let i = 0; i < size; i++) sum[i * (size + 1)] = 1
  const degree = end === 'single' && terms === 3 ? 3 : terms - 1
  let power = skew
  for (let exponent = 1; exponent <= degree; exponent++) {
    if (exponent > 1) power = product(power, skew, size)
    const factor = end === 'single' && exponent === degree && degree > 2 ? 1 : 2
    for (let i = 0; i < sum.length; i++) sum[i] = (sum[i] as number) + factor * (power[i] as number)
  }
  return sum
}

function scaleRow(left: Float64Array, row: number, size: number, factor: number, right: Float64Array): void {
  for (let i = row * size; i < (row + 1) * size; i++) {
    left[i] = (left[i] as number) * factor
    right[i] = (right[i] as number) * factor
  }
}
