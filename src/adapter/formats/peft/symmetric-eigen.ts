// Eigenvectors of a whole symmetric matrix, in float64: Householder reflections to a tridiagonal one, then implicit QL steps
// (Bowdler, Martin, Reinsch and Wilkinson 1968). O(n³), where Jacobi sweeps cost that many times over.

export interface SymmetricEigen {
  /** Ascending. */
  readonly values: Float64Array // [n]
  /** Row k belongs to values[k]. */
  readonly vectors: Float64Array // [n, n]
}

/** An off-diagonal value below this share of its neighbours is zero in float64. */
const NEGLIGIBLE = 2 ** -53

/** Each value takes two or three steps; this many mean that the matrix held a NaN. */
const MAX_STEPS = 60

/** `matrix` [n, n] is destroyed. Null where it does not converge. */
export function symmetricEigen(matrix: Float64Array, n: number): SymmetricEigen | null {
  const { diagonal, side, vectors } = tridiagonalize(matrix, n)
  for (let first = 0; first < n; first++) {
    for (let step = 0; ; step++) {
      const last = endOfBlock(diagonal, side, first)
      if (last === first) break
      if (step === MAX_STEPS) return null
      implicitStep(diagonal, side, vectors, first, last)
    }
  }
  const order = Array.from(diagonal.keys()).sort((i, j) => (diagonal[i] as number) - (diagonal[j] as number))
  const sorted = new Float64Array(n * n)
  for (const [k, from] of order.entries()) sorted.set(vectors.subarray(from * n, (from + 1) * n), k * n)
  return { values: Float64Array.from(order, (from) => diagonal[from] as number), vectors: sorted }
}

interface Tridiagonal {
  readonly diagonal: Float64Array // [n]
  /** side[i] couples i and i + 1; the last is 0. */
  readonly side: Float64Array // [n]
  /** Rows: matrix = vectorsᵀ · tridiagonal · vectors. */
  readonly vectors: Float64Array // [n, n]
}

function tridiagonalize(matrix: Float64Array, n: number): Tridiagonal {
  const [diagonal, side] = [new Float64Array(n), new Float64Array(n)]
  const reflectors: (Float64Array | null)[] = []
  for (let k = 0; k < n; k++) {
    diagonal[k] = matrix[k * n + k] as number
    if (k === n - 1) break
    const v = matrix.slice(k * n, (k + 1) * n).fill(0, 0, k + 1)
    const norm = Math.sqrt(dot(v, v, k + 1))
    const head = v[k + 1] as number
    side[k] = head > 0 ? -norm : norm
    const isDone = k === n - 2 || norm === Math.abs(head)
    if (isDone) side[k] = head
    reflectors.push(isDone ? null : v)
    if (isDone) continue
    v[k + 1] = head - (side[k] as number)
    const length = Math.sqrt(dot(v, v, k + 1))
    for (let i = k + 1; i < n; i++) v[i] = (v[i] as number) / length
    reflectBothSides(matrix, v, k + 1)
  }
  const vectors = new Float64Array(n * n)
  for (let i = 0; i < n; i++) vectors[i * n + i] = 1
  // Row by row Q = H₀ H₁ … transposed, the innermost factor first.
  for (let k = reflectors.length - 1; k >= 0; k--) {
    const v = reflectors[k]
    if (v !== null && v !== undefined) reflectColumns(vectors, v, k + 1)
  }
  return { diagonal, side, vectors }
}

/** (I - 2vvᵀ) · matrix · (I - 2vvᵀ) on the rows and columns from `start`. */
function reflectBothSides(matrix: Float64Array, v: Float64Array, start: number): void {
  const n = v.length
  const image = new Float64Array(n)
  for (let row = start; row < n; row++) image[row] = dot(matrix.subarray(row * n, (row + 1) * n), v, start)
  const share = dot(image, v, start)
  for (let i = start; i < n; i++) image[i] = 2 * ((image[i] as number) - share * (v[i] as number))
  for (let row = start; row < n; row++) {
    const ofRow = v[row] as number
    const imageOfRow = image[row] as number
    for (let column = start; column < n; column++) {
      const at = row * n + column
      matrix[at] = (matrix[at] as number) - ofRow * (image[column] as number) - imageOfRow * (v[column] as number)
    }
  }
}

/** vectors · (I - 2vvᵀ). */
function reflectColumns(vectors: Float64Array, v: Float64Array, start: number): void {
  const n = v.length
  for (let row = 0; row < n; row++) {
    const values = vectors.subarray(row * n, (row + 1) * n)
    const share = 2 * dot(values, v, start)
    if (share === 0) continue
    for (let i = start; i < n; i++) values[i] = (values[i] as number) - share * (v[i] as number)
  }
}

/** Last index of the block that begins at `first` and does not fall apart. */
function endOfBlock(diagonal: Float64Array, side: Float64Array, first: number): number {
  let last = first
  while (last < diagonal.length - 1) {
    const scale = Math.abs(diagonal[last] as number) + Math.abs(diagonal[last + 1] as number)
    if (Math.abs(side[last] as number) <= NEGLIGIBLE * scale) break
    last++
  }
  return last
}

/** One QL step with Wilkinson's shift on [first, last]; the rows of `vectors` turn with it. */
function implicitStep(diagonal: Float64Array, side: Float64Array, vectors: Float64Array, first: number, last: number): void {
  const lower = side[first] as number
  const slope = ((diagonal[first + 1] as number) - (diagonal[first] as number)) / (2 * lower)
  const root = Math.sqrt(slope * slope + 1)
  const shift = (diagonal[first] as number) - lower / (slope + (slope < 0 ? -root : root))
  let g = (diagonal[last] as number) - shift
  let [sine, cosine, removed] = [1, 1, 0]
  for (let i = last - 1; i >= first; i--) {
    const f = sine * (side[i] as number)
    const b = cosine * (side[i] as number)
    const length = Math.sqrt(f * f + g * g)
    side[i + 1] = length
    if (length === 0) {
      diagonal[i + 1] = (diagonal[i + 1] as number) - removed
      side[last] = 0
      return
    }
    sine = f / length
    cosine = g / length
    g = (diagonal[i + 1] as number) - removed
    const middle = ((diagonal[i] as number) - g) * sine + 2 * cosine * b
    removed = sine * middle
    diagonal[i + 1] = g + removed
    g = cosine * middle - b
    turnRows(vectors, i, diagonal.length, cosine, sine)
  }
  diagonal[first] = (diagonal[first] as number) - removed
  side[first] = g
  side[last] = 0
}

function turnRows(vectors: Float64Array, row: number, n: number, cosine: number, sine: number): void {
  const start = row * n
  for (let i = start; i < start + n; i++) {
    const low = vectors[i] as number
    const high = vectors[i + n] as number
    vectors[i + n] = sine * low + cosine * high
    vectors[i] = cosine * low - sine * high
  }
}

function dot(a: Float64Array, b: Float64Array, start: number): number {
  let sum = 0
  for (let i = start; i < a.length; i++) sum += (a[i] as number) * (b[i] as number)
  return sum
}
