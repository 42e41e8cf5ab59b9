/** Accumulates in float64, so that the definition's own rounding stays far below any tolerance it is compared under. */
export function dot(a: Float32Array, b: Float32Array): number {
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += (a[i] as number) * (b[i] as number)
  return sum
}

/** W u (+ bias) in float64, W [rows, u.length]. */
export function product(weight: Float32Array, u: Float32Array, bias: Float32Array | null = null): Float64Array {
  const numRows = weight.length / u.length
  const out = new Float64Array(numRows)
  for (let row = 0; row < numRows; row++) {
    out[row] = dot(weight.subarray(row * u.length, (row + 1) * u.length), u) + (bias === null ? 0 : (bias[row] as number))
  }
  return out
}

/** z += scale · values. */
export function addTo(z: Float32Array, values: Float32Array | Float64Array, scale = 1): void {
  for (let i = 0; i < z.length; i++) z[i] = (z[i] as number) + scale * (values[i] as number)
}

/** z *= factor, element by element. */
export function multiplyBy(z: Float32Array, factor: Float32Array | Float64Array): void {
  for (let i = 0; i < z.length; i++) z[i] = (z[i] as number) * (factor[i] as number)
}

/** Subtracts the largest first: nothing overflows. */
export function softmax(scores: readonly number[]): readonly number[] {
  let largest = Number.NEGATIVE_INFINITY
  for (const score of scores) largest = Math.max(largest, score)
  const powers = scores.map((score) => Math.exp(score - largest))
  const sum = powers.reduce((total, power) => total + power, 0)
  return powers.map((power) => power / sum)
}
