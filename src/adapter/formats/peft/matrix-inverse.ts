// Gauss-Jordan elimination with row pivots, in float64.

/** The inverse of `matrix` [n, n]; null where it is singular. */
export function inverse(matrix: ArrayLike<number>, n: number): Float64Array | null {
  const left = Float64Array.from(matrix)
  const right = new Float64Array(n * n)
  for (let i = 0; i < n; i++) right[i * (n + 1)] = 1
  for (let column = 0; column < n; column++) {
    const pivot = largestRow(left, n, column)
    const value = left[pivot * n + column] as number
    if (value === 0) return null
    for (const side of [left, right]) {
      swapRows(side, n, pivot, column)
      for (let i = 0; i < n; i++) side[column * n + i] = (side[column * n + i] as number) / value
    }
    for (let row = 0; row < n; row++) {
      const factor = left[row * n + column] as number
      if (row === column || factor === 0) continue
      for (const side of [left, right]) subtractRow(side, n, row, column, factor)
    }
  }
  return right
}

function largestRow(matrix: Float64Array, n: number, column: number): number {
  let best = column
  for (let row = column + 1; row < n; row++) {
    if (Math.abs(matrix[row * n + column] as number) > Math.abs(matrix[best * n + column] as number)) best = row
  }
  return best
}

function swapRows(matrix: Float64Array, n: number, a: number, b: number): void {
  if (a === b) return
  const kept = matrix.slice(a * n, (a + 1) * n)
  matrix.copyWithin(a * n, b * n, (b + 1) * n)
  matrix.set(kept, b * n)
}

/** row -= factor · other */
function subtractRow(matrix: Float64Array, n: number, row: number, other: number, factor: number): void {
  for (let i = 0; i < n; i++) {
    matrix[row * n + i] = (matrix[row * n + i] as number) - factor * (matrix[other * n + i] as number)
  }
}
