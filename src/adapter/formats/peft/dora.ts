// DoRA (arXiv:2402.09353) as PEFT serves it: W' = (m / ‖W + s·BA‖) ⊙ (W + s·BA). The norm depends on the base weight and on
// nothing of the request, so it is computed once, here: a factor on the base product, and B with its rows scaled alike.

/** A low-rank update of one site; `scale` is already resolved. */
interface Delta {
  readonly a: Float32Array // [rank, in]
  readonly b: Float32Array // [out, rank]
  readonly rank: number
  readonly scale: number
}

/**
 * m over the L2 norm of each row of W + s·BA, for `weight` [rows, in] and `magnitude` [rows]. Sums in float64: the norm is
 * formed from the updated row itself, because expanding the square cancels where the update undoes the weight.
 */
export function rowFactors(weight: Float32Array, magnitude: Float32Array, delta: Delta): Float32Array {
  const { a, b, rank, scale } = delta
  const width = a.length / rank
  const row = new Float64Array(width)
  return magnitude.map((size, o) => {
    for (let i = 0; i < width; i++) row[i] = weight[o * width + i] as number
    for (let k = 0; k < rank; k++) {
      const factor = scale * (b[o * rank + k] as number)
      for (let i = 0; i < width; i++) row[i] = (row[i] as number) + factor * (a[k * width + i] as number)
    }
    return size / Math.sqrt(sumOfSquares(row))
  })
}

/**
 * The embedding form: the norm of each hidden dimension over the vocabulary.
 * `weight` [vocab, hidden], A [rank, vocab], B [hidden, rank], `magnitude` [hidden].
 */
export function columnFactors(weight: Float32Array, magnitude: Float32Array, delta: Delta): Float32Array {
  const { a, b, rank, scale } = delta
  const vocabSize = a.length / rank
  const width = magnitude.length
  const squares = new Float64Array(width)
  for (let token = 0; token < vocabSize; token++) {
    for (let d = 0; d < width; d++) {
      let value = weight[token * width + d] as number
      for (let k = 0; k < rank; k++) value += scale * (b[d * rank + k] as number) * (a[k * vocabSize + token] as number)
      squares[d] = (squares[d] as number) + value * value
    }
  }
  return magnitude.map((size, d) => size / Math.sqrt(squares[d] as number))
}

/** diag(factors) · B, in a new array. */
export function scaleRows(b: Float32Array, factors: Float32Array, rank: number): Float32Array {
  return b.map((value, i) => value * (factors[Math.floor(i / rank)] as number))
}

function sumOfSquares(values: Float64Array): number {
  let sum = 0
  for (let i = 0; i < values.length; i++) sum += (values[i] as number) * (values[i] as number)
  return sum
}
