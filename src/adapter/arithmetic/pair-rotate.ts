import type { PairRotate } from '../primitive.ts'

/** z'[j] = cos[j] z[j] ∓ sin[j] z[j ± half]: each pair of outputs turned and stretched (RoAd, arXiv:2409.00119). In place. */
export function pairRotate(z: Float32Array, { half, cos, sin }: PairRotate): void {
  const before = z.slice()
  for (let j = 0; j < z.length; j++) {
    const isLower = j % (2 * half) < half
    const other = before[isLower ? j + half : j - half] as number
    z[j] = (cos[j] as number) * (before[j] as number) + (isLower ? -1 : 1) * (sin[j] as number) * other
  }
}
