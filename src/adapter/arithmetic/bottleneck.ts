import type { Bottleneck, LayerNormWeights } from '../primitive.ts'
import { activate } from './activate.ts'
import { product } from './dot.ts'
import { pooledGate } from './pooled-gate.ts'

/**
 * A(x) = normAfter(gate · scale ⊙ (up · act(down · normBefore(x) + downBias) + upBias)) for the rows of one call
 * (arXiv:1902.00751; scaled and parallel: arXiv:2110.04366).
 */
export function bottleneck(adapter: Bottleneck, xs: readonly Float32Array[]): readonly Float32Array[] {
  const rows = expanded(adapter, xs)
  const { normAfter } = adapter
  return normAfter === null ? rows : rows.map((row) => layerNorm(row, normAfter))
}

/** The same before `normAfter`. */
export function expanded(adapter: Bottleneck, xs: readonly Float32Array[]): readonly Float32Array[] {
  const { normBefore, down, downBias, up, upBias, activation, scale } = adapter
  const gate = pooledGate(adapter.gate, xs)
  return xs.map((x) => {
    const normed = normBefore === null ? x : layerNorm(x, normBefore)
    const inner = Float32Array.from(product(down, normed, downBias), (value) => activate(activation, value))
    return Float32Array.from(product(up, inner, upBias), (value, i) => {
      return gate * (typeof scale === 'number' ? scale : (scale[i] as number)) * value
    })
  })
}

/** arXiv:1607.06450. */
export function layerNorm(x: Float32Array, { weight, bias, eps }: LayerNormWeights): Float32Array {
  let mean = 0
  for (const value of x) mean += value / x.length
  let variance = 0
  for (const value of x) variance += (value - mean) ** 2 / x.length
  const inverse = 1 / Math.sqrt(variance + eps)
  return x.map((value, i) => (value - mean) * inverse * (weight[i] as number) + (bias[i] as number))
}
