import type { DecoderSpec } from '../../model/decoder-spec.ts'
import type { KvPool } from './kv-pool.ts'
import { dot } from './matrix.ts'

/** Keys one token sees: KV slots of its sequence in order, itself last. */
export interface VisibleKeys {
  readonly layer: number
  readonly kvSlots: readonly number[]
}

/**
 * Causal attention of one token over paged keys and values; query heads share KV heads in groups (GQA, arXiv:2305.13245).
 * `q` and `out` are [numHeads * headDim].
 */
export function attend(spec: DecoderSpec, pool: KvPool, visible: VisibleKeys, q: Float32Array, out: Float32Array): void {
  const { headDim, numHeads, numKvHeads } = spec
  const headsPerKvHead = numHeads / numKvHeads
  for (let head = 0; head < numHeads; head++) {
    const kvStart = Math.floor(head / headsPerKvHead) * headDim
    const query = q.subarray(head * headDim, (head + 1) * headDim)
    const scores = visible.kvSlots.map((kvSlot) => {
      const key = pool.keys(visible.layer, kvSlot).subarray(kvStart, kvStart + headDim)
      return softcap(dot(query, key) * spec.attentionScale, spec.attentionSoftcap)
    })
    const weights = softmax(scores)
    for (let i = 0; i < headDim; i++) {
      let sum = 0
      visible.kvSlots.forEach((kvSlot, j) => {
        sum += (weights[j] as number) * (pool.values(visible.layer, kvSlot)[kvStart + i] as number)
      })
      out[head * headDim + i] = sum
    }
  }
}

/** cap · tanh(x / cap), Gemma 2's (arXiv:2408.00118). */
export function softcap(x: number, cap: number | null): number {
  return cap === null ? x : cap * Math.tanh(x / cap)
}

export function softmax(scores: readonly number[]): readonly number[] {
  let largest = Number.NEGATIVE_INFINITY
  for (const score of scores) largest = Math.max(largest, score)
  const powers = scores.map((score) => Math.exp(score - largest))
  const sum = powers.reduce((total, power) => total + power, 0)
  return powers.map((power) => power / sum)
}

/** Turns the pairs (i, i + rotaryDim / 2) of every head in place. `cos` and `sin` are this token's [rotaryDim / 2]. */
export function rotateHeads(x: Float32Array, headDim: number, cos: Float32Array, sin: Float32Array): void {
  const half = cos.length
  for (let start = 0; start < x.length; start += headDim) {
    for (let i = 0; i < half; i++) {
      const a = x[start + i] as number
      const b = x[start + i + half] as number
      x[start + i] = a * (cos[i] as number) - b * (sin[i] as number)
      x[start + i + half] = b * (cos[i] as number) + a * (sin[i] as number)
    }
  }
}
