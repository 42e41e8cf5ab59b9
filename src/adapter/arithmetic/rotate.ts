import type { Rotate } from '../primitive.ts'

/** x · blockdiag(R), a row vector times a matrix (OFT, arXiv:2306.07280; BOFT, arXiv:2311.06243). */
export function rotated(x: Float32Array, { blockSize, blocks }: Rotate): Float32Array {
  const out = new Float32Array(x.length)
  const blockLength = blockSize * blockSize
  for (let start = 0; start < x.length; start += blockSize) {
    const block = (start * blockSize) % blocks.length
    const weight = blocks.subarray(block, block + blockLength)
    for (let column = 0; column < blockSize; column++) {
      let sum = 0
      for (let row = 0; row < blockSize; row++) sum += (x[start + row] as number) * (weight[row * blockSize + column] as number)
      out[start + column] = sum
    }
  }
  return out
}
