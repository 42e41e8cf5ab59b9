// Float64 arithmetic of the oracle: plain arrays and loops, none of it shared with the code under test.

export type Row = readonly number[]
/** [rows][columns] */
export type Matrix = readonly Row[]

export function matVec(matrix: Matrix, x: Row): number[] {
  return matrix.map((row) => dot(row, x))
}

export function matMul(a: Matrix, b: Matrix): number[][] {
  const columns = transpose(b)
  return a.map((row) => columns.map((column) => dot(row, column)))
}

export function transpose(matrix: Matrix): number[][] {
  return (matrix[0] ?? []).map((_, j) => matrix.map((row) => row[j]!))
}

/** kron(a, b)[i·p + k][j·q + l] = a[i][j] b[k][l] for b [p, q]. */
export function kron(a: Matrix, b: Matrix): number[][] {
  return a.flatMap((rowA) => b.map((rowB) => rowA.flatMap((x) => rowB.map((y) => x * y))))
}

export function outer(column: Row, row: Row): number[][] {
  return column.map((x) => row.map((y) => x * y))
}

export function dot(a: Row, b: Row): number {
  if (a.length !== b.length) throw new Error(`${a.length} values beside ${b.length}`)
  return a.reduce((sum, value, i) => sum + value * b[i]!, 0)
}

export function add(a: Row, b: Row): number[] {
  if (a.length !== b.length) throw new Error(`${a.length} values beside ${b.length}`)
  return a.map((value, i) => value + b[i]!)
}

export function times(a: Row, b: Row): number[] {
  if (a.length !== b.length) throw new Error(`${a.length} values beside ${b.length}`)
  return a.map((value, i) => value * b[i]!)
}

export function scaled(row: Row, factor: number): number[] {
  return row.map((value) => value * factor)
}

export function addMatrices(a: Matrix, b: Matrix): number[][] {
  return a.map((row, i) => add(row, b[i]!))
}

export function mapMatrix(matrix: Matrix, change: (value: number, i: number, j: number) => number): number[][] {
  return matrix.map((row, i) => row.map((value, j) => change(value, i, j)))
}

export function softmax(scores: Row): number[] {
  const top = Math.max(...scores)
  const powers = scores.map((score) => Math.exp(score - top))
  const total = powers.reduce((sum, power) => sum + power, 0)
  return powers.map((power) => power / total)
}

/** The `count` largest kept as they are, the others zero. */
export function keepLargest(values: Row, count: number): number[] {
  const least = values.toSorted((a, b) => b - a)[count - 1]!
  return values.map((value) => (value >= least ? value : 0))
}

export function relu(row: Row): number[] {
  return row.map((value) => Math.max(0, value))
}

export function silu(value: number): number {
  return value / (1 + Math.exp(-value))
}

export interface Norm {
  readonly weight: Row
  readonly bias: Row
  readonly eps: number
}

/** With the population variance (arXiv:1607.06450). */
export function layerNorm(x: Row, { weight, bias, eps }: Norm): number[] {
  const mean = x.reduce((sum, value) => sum + value, 0) / x.length
  const variance = x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.length
  return x.map((value, i) => ((value - mean) / Math.sqrt(variance + eps)) * weight[i]! + bias[i]!)
}

/** Without mean and bias (arXiv:1910.07467). */
export function rmsNorm(x: Row, weight: Row, eps: number): number[] {
  const power = x.reduce((sum, value) => sum + value * value, 0) / x.length
  return x.map((value, i) => (value / Math.sqrt(power + eps)) * weight[i]!)
}
