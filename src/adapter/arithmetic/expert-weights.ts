import type { Gate } from '../primitive.ts'
import { dot, product, softmax } from './dot.ts'

/**
 * Weight of each expert for one token x; zero for those not chosen. Softmax over all experts, the `topK` largest kept
 * (arXiv:1701.06538), or a softmax over the `topK` prototypes most aligned with x (Arrow, arXiv:2405.11157).
 */
export function expertWeights(gate: Exclude<Gate, { kind: 'attention' }>, x: Float32Array): readonly number[] {
  if (gate.kind === 'constant') return [...gate.weights]
  if (gate.kind === 'prototype') {
    const scores = [...product(gate.prototypes, x)].map(Math.abs)
    const kept = largest(scores, gate.topK)
    return softmax(scores.map((score, i) => (kept.has(i) ? score / gate.temperature : Number.NEGATIVE_INFINITY)))
  }
  const all = softmax([...product(gate.weight, x, gate.bias)].map((score) => score / gate.temperature))
  if (gate.topK === null) return all
  const kept = largest(all, gate.topK)
  const chosen = all.map((weight, i) => (kept.has(i) ? weight : 0))
  const sum = gate.renormalize ? chosen.reduce((total, weight) => total + weight, 0) : 1
  return chosen.map((weight) => weight / sum)
}

/** Σ p_i value A_i with p = softmax_i((query s + queryBias) · (key A_i + keyBias)) (AdapterFusion, arXiv:2005.00247). */
export function fused(gate: Gate & { kind: 'attention' }, s: Float32Array, outputs: readonly Float32Array[]): Float64Array {
  const query = Float32Array.from(product(gate.query, s, gate.queryBias))
  const weights = softmax(outputs.map((output) => dot(query, Float32Array.from(product(gate.key, output, gate.keyBias)))))
  const mixed = new Float64Array(s.length)
  outputs.forEach((output, expert) => {
    product(gate.value, output).forEach((value, i) => {
      mixed[i] = (mixed[i] as number) + (weights[expert] as number) * value
    })
  })
  return mixed
}

/** Indices of the largest scores; ties go to the lower index. */
function largest(scores: readonly number[], count: number): ReadonlySet<number> {
  const order = scores.map((score, index) => ({ score, index })).sort((a, b) => b.score - a.score || a.index - b.index)
  return new Set(order.slice(0, count).map(({ index }) => index))
}
