// Dense products for folds: sums in float64, because the stored float32 factor is a product of products.

type Matrix = Float32Array | Float64Array

/** a [rows, inner] · b [inner, columns] -> [rows, columns] */
export function product(a: Matrix, b: Matrix, inner: number): Float64Array {
  const rows = a.length / inner
  const columns = b.length / inner
  const out = new Float64Array(rows * columns)
  for (let row = 0; row < rows; row++) {
    const start = row * columns
    for (let k = 0; k < inner; k++) {
      const factor = a[row * inner + k] as number
      if (factor === 0) continue
      const from = k * columns
      for (let column = 0; column < columns; column++) {
        out[start + column] = (out[start + column] as number) + factor * (b[from + column] as number)
      }
    }
  }
  return out
}

/** a [rows, inner] · bᵀ for b [columns, inner] -> [rows, columns] */
export function productTransposed(a: Matrix, b: Matrix, inner: number): Float64Array {
  const rows = a.length / inner
  const columns = b.length / inner
  const out = new Float64Array(rows * columns)
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      let sum = 0
      for (let k = 0; k < inner; k++) sum += (a[row * inner + k] as number) * (b[column * inner + k] as number)
      out[row * columns + column] = sum
    }
  }
  return out
}
