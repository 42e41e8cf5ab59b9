import type { SitePrimitives } from '../../adapter/site-primitives.ts'
import type { NormSpec } from '../../model/decoder-spec.ts'
import type { SiteWeights } from './site-weights.ts'

/**
 * Normalises `x` in place, in groups of the weight's width: one group is the whole row, several are heads.
 * RMSNorm: arXiv:1910.07467. LayerNorm: arXiv:1607.06450.
 */
export function applyNorm(spec: NormSpec, base: SiteWeights, adapter: SitePrimitives | null, x: Float32Array): void {
  for (let start = 0; start < x.length; start += base.numOut) {
    normalizeGroup(spec, base, adapter, x.subarray(start, start + base.numOut))
  }
}

function normalizeGroup(spec: NormSpec, base: SiteWeights, adapter: SitePrimitives | null, x: Float32Array): void {
  const weight = adapter?.replace?.weight ?? base.weight
  const bias = adapter?.vectors.get('bias') ?? base.bias
  const outputScale = adapter?.vectors.get('output-scale')
  const shift = adapter?.vectors.get('shift')
  const mean = spec.kind === 'layer' ? meanOf(x, (value) => value) : 0
  const variance = meanOf(x, (value) => (value - mean) ** 2)
  const inverse = 1 / Math.sqrt(variance + spec.eps)
  for (let i = 0; i < x.length; i++) {
    let y = ((x[i] as number) - mean) * inverse * ((weight[i] as number) + spec.weightOffset)
    if (bias !== null) y += bias[i] as number
    if (outputScale !== undefined) y *= outputScale[i] as number
    if (shift !== undefined) y += shift[i] as number
    x[i] = y
  }
}

function meanOf(x: Float32Array, term: (value: number) => number): number {
  let sum = 0
  for (const value of x) sum += term(value)
  return sum / x.length
}
