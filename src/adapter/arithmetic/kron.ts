import type { Kron } from '../primitive.ts'

/**
 * z += scale · kron(left, right) x. With X = x as [b, e] that is vec(left X rightᵀ), [a, c] (LoKr, arXiv:2309.14859;
 * KronA, arXiv:2212.10650).
 */
export function addKron(z: Float32Array, { leftShape, rightShape, left, right, scale }: Kron, x: Float32Array): void {
  const [a, b] = leftShape
  const [c, e] = rightShape
  const shrunk = new Float64Array(b * c) // X rightᵀ
  for (let j = 0; j < b; j++) {
    for (let k = 0; k < c; k++) {
      let sum = 0
      for (let t = 0; t < e; t++) sum += (x[j * e + t] as number) * (right[k * e + t] as number)
      shrunk[j * c + k] = sum
    }
  }
  for (let i = 0; i < a; i++) {
    for (let k = 0; k < c; k++) {
      let sum = 0
      for (let j = 0; j < b; j++) sum += (left[i * b + j] as number) * (shrunk[j * c + k] as number)
      z[i * c + k] = (z[i * c + k] as number) + scale * sum
    }
  }
}
