import type { Circulant } from '../primitive.ts'

/** z[i·s + k] += Σ_j Σ_t kernel[i, j, (t - k) mod s] · x[j·s + t], s = blockSize (C3A, arXiv:2407.19342). */
export function addCirculant(z: Float32Array, circulant: Circulant, x: Float32Array): void {
  const { blockSize, kernel } = circulant
  const numIn = x.length / blockSize
  for (let row = 0; row < z.length; row++) {
    const k = row % blockSize
    const block = (row - k) / blockSize
    let sum = 0
    for (let column = 0; column < x.length; column++) {
      const t = column % blockSize
      const j = (column - t) / blockSize
      const turned = (t - k + blockSize) % blockSize
      sum += (kernel[(block * numIn + j) * blockSize + turned] as number) * (x[column] as number)
    }
    z[row] = (z[row] as number) + sum
  }
}
