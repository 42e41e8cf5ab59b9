import { dot, softmax } from '../../adapter/arithmetic/dot.ts'
import type { SideAttention } from '../../adapter/primitive.ts'
import type { DecoderSpec } from '../../model/decoder-spec.ts'
import type { KvPool } from './kv-pool.ts'

/** Keys one token sees: KV slots of its sequence in order, itself last. */
export interface VisibleKeys {
  readonly layer: number
  readonly kvSlots: readonly number[]
  /** The first `numGated` keys are a prefix, whose keys and values an adapter scales for this token. */
  readonly numGated: number
  readonly keyGate: number
  readonly valueGate: number
}

/**
 * Causal attention of one token over paged keys and values; query heads share KV heads in groups (GQA, arXiv:2305.13245).
 * `q` and `out` are [numHeads * headDim].
 */
export function attend(spec: DecoderSpec, pool: KvPool, visible: VisibleKeys, q: Float32Array, out: Float32Array): void {
  const { layer, kvSlots, numGated, keyGate, valueGate } = visible
  const { headDim } = spec
  for (let head = 0; head < spec.numHeads; head++) {
    const kvStart = kvStartOf(spec, head)
    const query = q.subarray(head * headDim, (head + 1) * headDim)
    const scores = kvSlots.map((kvSlot, i) => {
      const key = pool.keys(layer, kvSlot).subarray(kvStart, kvStart + headDim)
      const scaled = dot(query, key) * spec.attentionScale * (i < numGated ? keyGate : 1)
      return softcap(scaled, spec.attentionSoftcap)
    })
    const weights = softmax(scores)
    for (let i = 0; i < headDim; i++) {
      let sum = 0
      kvSlots.forEach((kvSlot, j) => {
        const weight = (weights[j] as number) * (j < numGated ? valueGate : 1)
        sum += weight * (pool.values(layer, kvSlot)[kvStart + i] as number)
      })
      out[head * headDim + i] = sum
    }
  }
}

/** out += gate · softmax(q keysᵀ · scale) values, a softmax of its own, unmasked (LLaMA-Adapter, arXiv:2303.16199). */
export function addSideAttention(spec: DecoderSpec, side: SideAttention, q: Float32Array, out: Float32Array): void {
  const { headDim, numHeads, numKvHeads } = spec
  const rowsOf = (values: Float32Array, kvStart: number) =>
    Array.from({ length: side.numTokens }, (_, token) => {
      const start = token * numKvHeads * headDim + kvStart
      return values.subarray(start, start + headDim)
    })
  for (let head = 0; head < numHeads; head++) {
    const kvStart = kvStartOf(spec, head)
    const query = q.subarray(head * headDim, (head + 1) * headDim)
    const weights = softmax(rowsOf(side.keys, kvStart).map((key) => dot(query, key) * spec.attentionScale))
    const values = rowsOf(side.values, kvStart)
    for (let i = 0; i < headDim; i++) {
      const sum = values.reduce((total, value, token) => total + (weights[token] as number) * (value[i] as number), 0)
      out[head * headDim + i] = (out[head * headDim + i] as number) + side.gate * sum
    }
  }
}

/** cap · tanh(x / cap), Gemma 2's (arXiv:2408.00118). */
export function softcap(x: number, cap: number | null): number {
  return cap === null ? x : cap * Math.tanh(x / cap)
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

/** First element of the head's keys in a row of them. */
function kvStartOf({ headDim, numHeads, numKvHeads }: DecoderSpec, head: number): number {
  return Math.floor(head / (numHeads / numKvHeads)) * headDim
}
