// Initialisations that take a low-rank part out of the base weight before training. A file saved without conversion needs that
// part subtracted again: W − s·B₀A₀ + s·BA. For two of them s·B₀A₀ follows from W alone, whatever signs the decomposition chose:
//   PiSSA (arXiv:2404.02948): s·B₀A₀ is the truncated singular value decomposition of W
//   OLoRA (arXiv:2406.01775): B₀A₀ is Q[:, :r]·R[:r] of W = QR
// Float64 throughout. W is [rows, columns], row-major.

/** product = b · a */
export interface Factors {
  readonly a: Float64Array // [rank, columns]
  readonly b: Float64Array // [rows, rank]
}

interface Matrix {
  readonly values: Float32Array
  readonly rows: number
  readonly columns: number
}

/** Extra directions iterated beside the wanted ones: each step shrinks the error by (σ[rank + extra] / σ[rank])². */
const OVERSAMPLING = 24

/** Stops when no kept singular value moves by more than this share in a step; the error of the subspace is then far below float32. */
const RELATIVE_TOLERANCE = 1e-14

/** Enough for a ratio of 0.9 to reach the tolerance; a flatter spectrum has no well-defined truncation. */
const MAX_ITERATIONS = 200

/** The rank leading singular triples of W as b · a with a orthonormal rows, by subspace iteration; null without convergence. */
export function truncatedSvd(weight: Matrix, rank: number): Factors | null {
  const width = Math.min(rank + OVERSAMPLING, weight.rows, weight.columns)
  if (rank > width) return null
  // Rows of `basis` span the candidate right singular space; a fixed pseudo-random start is never orthogonal to the wanted one.
  const basis = startBasis(width, weight.columns)
  let previous: Float64Array | null = null
  for (let step = 0; step < MAX_ITERATIONS; step++) {
    orthonormalizeRows(basis, width, weight.columns)
    const image = timesTransposed(weight, basis, width)
    rotateToSingular(basis, image, width, weight)
    const values = rowNorms(image, width, weight.rows).slice(0, rank)
    if (previous !== null && hasConverged(previous, values)) return project(weight, basis, rank)
    previous = values
    basis.set(timesWeight(image, weight, width))
  }
  return null
}

/** The first rank columns of Q and rows of R; null where those columns of W are linearly dependent. */
export function truncatedQr(weight: Matrix, rank: number): Factors | null {
  const { values, rows, columns } = weight
  if (rank > Math.min(rows, columns)) return null
  const q = new Float64Array(rank * rows)
  for (let k = 0; k < rank; k++) for (let o = 0; o < rows; o++) q[k * rows + o] = values[o * columns + k] as number
  if (!orthonormalizeRows(q, rank, rows)) return null
  const b = new Float64Array(rows * rank)
  for (let k = 0; k < rank; k++) for (let o = 0; o < rows; o++) b[o * rank + k] = q[k * rows + o] as number
  return { a: timesWeight(q, weight, rank), b }
}

/** Gram-Schmidt, twice for stability; false where a row is (numerically) in the span of those before it. */
function orthonormalizeRows(rowsOfBasis: Float64Array, count: number, width: number): boolean {
  const minimumShare = 1e-10
  let isIndependent = true
  for (let k = 0; k < count; k++) {
    const row = rowsOfBasis.subarray(k * width, (k + 1) * width)
    const original = Math.sqrt(dot(row, row))
    for (let pass = 0; pass < 2; pass++) {
      for (let j = 0; j < k; j++) {
        const other = rowsOfBasis.subarray(j * width, (j + 1) * width)
        addScaled(row, other, -dot(row, other))
      }
    }
    const norm = Math.sqrt(dot(row, row))
    if (norm <= original * minimumShare) {
      isIndependent = false
      row.fill(0)
    } else for (let i = 0; i < width; i++) row[i] = (row[i] as number) / norm
  }
  return isIndependent
}

/** Turns `basis` and its `image` by the eigenvectors of image · imageᵀ, largest first (Rayleigh-Ritz). */
function rotateToSingular(basis: Float64Array, image: Float64Array, width: number, weight: Matrix): void {
  const gram = new Float64Array(width * width)
  for (let i = 0; i < width; i++) {
    for (let j = 0; j < width; j++) {
      gram[i * width + j] = dot(rowAt(image, i, weight.rows), rowAt(image, j, weight.rows))
    }
  }
  const vectors = jacobiEigenvectors(gram, width)
  basis.set(combineRows(vectors, basis, width, weight.columns))
  image.set(combineRows(vectors, image, width, weight.rows))
}

/** Rows are the eigenvectors of a symmetric matrix, by descending eigenvalue. Cyclic Jacobi; destroys `matrix`. */
function jacobiEigenvectors(matrix: Float64Array, n: number): Float64Array {
  const vectors = new Float64Array(n * n)
  for (let i = 0; i < n; i++) vectors[i * n + i] = 1
  const maxSweeps = 30
  for (let sweep = 0; sweep < maxSweeps && offDiagonalShare(matrix, n) > 1e-30; sweep++) {
    for (let p = 0; p < n; p++) for (let q = p + 1; q < n; q++) rotate(matrix, vectors, n, p, q)
  }
  const order = Array.from({ length: n }, (_, i) => i).sort(
    (i, j) => (matrix[j * n + j] as number) - (matrix[i * n + i] as number),
  )
  const sorted = new Float64Array(n * n)
  for (const [to, from] of order.entries()) sorted.set(rowAt(vectors, from, n), to * n)
  return sorted
}

function rotate(matrix: Float64Array, vectors: Float64Array, n: number, p: number, q: number): void {
  const off = matrix[p * n + q] as number
  if (off === 0) return
  const theta = ((matrix[q * n + q] as number) - (matrix[p * n + p] as number)) / (2 * off)
  const tangent = Math.sign(theta || 1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1))
  const cosine = 1 / Math.sqrt(tangent * tangent + 1)
  const sine = tangent * cosine
  turnRows(matrix, n, p, q, cosine, sine)
  for (let i = 0; i < n; i++) {
    const mp = matrix[i * n + p] as number
    const mq = matrix[i * n + q] as number
    matrix[i * n + p] = cosine * mp - sine * mq
    matrix[i * n + q] = sine * mp + cosine * mq
  }
  turnRows(vectors, n, p, q, cosine, sine)
}

function turnRows(matrix: Float64Array, n: number, p: number, q: number, cosine: number, sine: number): void {
  for (let i = 0; i < n; i++) {
    const mp = matrix[p * n + i] as number
    const mq = matrix[q * n + i] as number
    matrix[p * n + i] = cosine * mp - sine * mq
    matrix[q * n + i] = sine * mp + cosine * mq
  }
}

function offDiagonalShare(matrix: Float64Array, n: number): number {
  let off = 0
  let all = 0
  for (let i = 0; i < n * n; i++) {
    const square = (matrix[i] as number) ** 2
    all += square
    if (i % (n + 1) !== 0) off += square
  }
  return all === 0 ? 0 : off / all
}

function project(weight: Matrix, basis: Float64Array, rank: number): Factors {
  const image = timesTransposed(weight, basis, rank)
  const b = new Float64Array(weight.rows * rank)
  for (let k = 0; k < rank; k++) for (let o = 0; o < weight.rows; o++) b[o * rank + k] = image[k * weight.rows + o] as number
  return { a: basis.slice(0, rank * weight.columns), b }
}

/** vectors [count, columns] · Wᵀ -> [count, rows] */
function timesTransposed(weight: Matrix, vectors: Float64Array, count: number): Float64Array {
  const { values, rows, columns } = weight
  const out = new Float64Array(count * rows)
  for (let o = 0; o < rows; o++) {
    for (let k = 0; k < count; k++) {
      let sum = 0
      for (let i = 0; i < columns; i++) sum += (values[o * columns + i] as number) * (vectors[k * columns + i] as number)
      out[k * rows + o] = sum
    }
  }
  return out
}

/** vectors [count, rows] · W -> [count, columns] */
function timesWeight(vectors: Float64Array, weight: Matrix, count: number): Float64Array {
  const { values, rows, columns } = weight
  const out = new Float64Array(count * columns)
  for (let o = 0; o < rows; o++) {
    for (let k = 0; k < count; k++) {
      const factor = vectors[k * rows + o] as number
      for (let i = 0; i < columns; i++) {
        out[k * columns + i] = (out[k * columns + i] as number) + factor * (values[o * columns + i] as number)
      }
    }
  }
  return out
}

function combineRows(coefficients: Float64Array, vectors: Float64Array, count: number, width: number): Float64Array {
  const out = new Float64Array(count * width)
  for (let k = 0; k < count; k++) {
    for (let j = 0; j < count; j++) {
      addScaled(rowAt(out, k, width), rowAt(vectors, j, width), coefficients[k * count + j] as number)
    }
  }
  return out
}

function startBasis(count: number, width: number): Float64Array {
  // Marsaglia's xorshift32 with a fixed seed: the same file must compile to the same numbers every time.
  let state = 0x9e3779b9
  return Float64Array.from({ length: count * width }, () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) / 2 ** 32 - 0.5
  })
}

function hasConverged(previous: Float64Array, values: Float64Array): boolean {
  return values.every((value, k) => Math.abs(value - (previous[k] as number)) <= RELATIVE_TOLERANCE * value)
}

function rowNorms(matrix: Float64Array, count: number, width: number): Float64Array {
  return Float64Array.from({ length: count }, (_, k) => Math.sqrt(dot(rowAt(matrix, k, width), rowAt(matrix, k, width))))
}

function rowAt(matrix: Float64Array, index: number, width: number): Float64Array {
  return matrix.subarray(index * width, (index + 1) * width)
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += (a[i] as number) * (b[i] as number)
  return sum
}

function addScaled(target: Float64Array, vector: Float64Array, factor: number): void {
  for (let i = 0; i < target.length; i++) target[i] = (target[i] as number) + factor * (vector[i] as number)
}
