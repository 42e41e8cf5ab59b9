import type { PooledGate } from '../primitive.ts'
import { sigmoid } from './activate.ts'
import { dot } from './dot.ts'

/** σ(weight · x + bias), the mean over the rows of one call (UniPELT, arXiv:2110.07577). 1 without a gate. */
export function pooledGate(gate: PooledGate | null, xs: readonly Float32Array[]): number {
  if (gate === null) return 1
  return xs.reduce((sum, x) => sum + sigmoid(dot(gate.weight, x) + gate.bias), 0) / xs.length
}
