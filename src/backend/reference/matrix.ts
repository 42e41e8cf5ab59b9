/** Row-major float32 rows; one row a token. */
export interface Matrix {
  readonly width: number
  readonly data: Float32Array // [numRows, width]
}

export function createMatrix(numRows: number, width: number): Matrix {
  return { width, data: new Float32Array(numRows * width) }
}

/** A view, not a copy. */
export function rowOf(matrix: Matrix, row: number): Float32Array {
  return matrix.data.subarray(row * matrix.width, (row + 1) * matrix.width)
}

export function addRows(target: Matrix, source: Matrix): void {
  for (let i = 0; i < target.data.length; i++) target.data[i] = (target.data[i] as number) + (source.data[i] as number)
}

/** Index of the largest value, the first among equals. */
export function argmax(values: Float32Array): number {
  let best = 0
  for (let i = 1; i < values.length; i++) if ((values[i] as number) > (values[best] as number)) best = i
  return best
}
