import type { GatedLowRank, LowRank } from '../primitive.ts'
import { addTo, product } from './dot.ts'

/** z += scale · (B (A x) + biasB) (LoRA, arXiv:2106.09685). */
export function addLowRank(z: Float32Array, lowRank: LowRank, x: Float32Array): void {
  addExpanded(z, lowRank, product(lowRank.a, x))
}

/** The same where x is a one-hot row: A x is column `index` of A [rank, numColumns]. */
export function addLowRankColumn(z: Float32Array, lowRank: LowRank, index: number, numColumns: number): void {
  const { rank, a } = lowRank
  addExpanded(
    z,
    lowRank,
    Float64Array.from({ length: rank }, (_, r) => a[r * numColumns + index] as number),
  )
}

/** z += gate · B (A x) (AdapterHub `use_gating`; UniPELT, arXiv:2110.07577). */
export function addGatedLowRank(z: Float32Array, { a, b, rank }: GatedLowRank, x: Float32Array, gate: number): void {
  addExpanded(z, { rank, b, scale: gate, biasB: null }, product(a, x))
}

function addExpanded(z: Float32Array, { rank, b, scale, biasB }: Omit<LowRank, 'kind' | 'a'>, inner: Float64Array): void {
  const delta = new Float64Array(z.length)
  for (let row = 0; row < z.length; row++) {
    let sum = biasB === null ? 0 : (biasB[row] as number)
    for (let r = 0; r < rank; r++) sum += (b[row * rank + r] as number) * (inner[r] as number)
    delta[row] = sum
  }
  addTo(z, delta, scale)
}
