// A Llama forward in float64 with places where an adapter may act, written from the architecture: what served adapters are compared with.

import { join } from 'node:path'
import { openSafetensors, readTensorF32 } from '../../../src/model/safetensors.ts'
import { goldenModelDir } from '../golden.ts'
import { add, dot, type Matrix, matVec, type Row, rmsNorm, scaled, silu, softmax, times } from './linear-algebra.ts'

export const ROLES = ['q', 'k', 'v', 'o', 'gate', 'up', 'down'] as const
export type Role = (typeof ROLES)[number]

/** Sizes of test/fixtures/models/llama. */
export const SHAPE = { layers: 2, hidden: 64, ff: 128, heads: 4, kvHeads: 2, headDim: 16, vocab: 320 } as const
const EPS = 1e-5
const ROPE_THETA = 10_000

const HF_NAMES: Readonly<Record<Role, string>> = {
  q: 'self_attn.q_proj',
  k: 'self_attn.k_proj',
  v: 'self_attn.v_proj',
  o: 'self_attn.o_proj',
  gate: 'mlp.gate_proj',
  up: 'mlp.up_proj',
  down: 'mlp.down_proj',
}

/** Rows of one sublayer for one token: what it adds, the stream before it, its normed input. */
export interface Sublayer {
  readonly f: Row
  readonly residual: Row
  readonly normed: Row
}

/** Where a method acts; each hook answers what takes the place of what it is given. */
export interface OracleAdapter {
  /** Parameters by their HF name, [out][in], norms [1][n]. */
  readonly weight?: (name: string, base: Matrix) => Matrix
  /** Output y of a linear `layers.0.q` or `lmHead` with input x. */
  readonly linear?: (site: string, x: Row, y: Row, base: Matrix) => Row
  /** Output of a norm: `layers.0.preAttn`, `layers.0.preMlp`, `finalNorm`. */
  readonly norm?: (site: string, y: Row) => Row
  /** Embedding of prompt token `index`. */
  readonly embed?: (row: Row, index: number) => Row
  /** What attention (`attnOut`) or the feed-forward network (`mlpOut`) adds to the stream. */
  readonly sublayer?: (site: string, rows: Sublayer) => Row
  /** Rows in front of the prompt, positions 0 and on. */
  readonly softPrompt?: Matrix
  /** Row `index` of the whole sequence as it enters a layer. */
  readonly blockInput?: (layer: number, row: Row, index: number) => Row
  /** Keys and values [kvHeads · headDim] in front, by layer; prompt positions come after them. */
  readonly prefix?: readonly { readonly keys: Matrix; readonly values: Matrix }[]
}

export function hfName(site: string): string {
  const [, layer, role] = site.split('.')
  return role === undefined ? 'lm_head.weight' : `model.layers.${layer}.${HF_NAMES[role as Role]}.weight`
}

export function widthsOf(role: string): readonly [numOut: number, numIn: number] {
  const { hidden, ff, kvHeads, headDim } = SHAPE
  if (role === 'k' || role === 'v') return [kvHeads * headDim, hidden]
  if (role === 'gate' || role === 'up') return [ff, hidden]
  return role === 'down' ? [hidden, ff] : [hidden, hidden]
}

/** Base parameter by HF name; norms are one row. */
export const baseWeight = (() => {
  const { tensors } = openSafetensors(join(goldenModelDir('llama'), 'model.safetensors'))
  const read = new Map<string, Matrix>()
  return (name: string): Matrix => {
    const known = read.get(name)
    if (known !== undefined) return known
    const entry = tensors.get(name)!
    const values = [...readTensorF32(entry)]
    const width = entry.shape.at(-1)!
    const matrix = Array.from({ length: values.length / width }, (_, i) => values.slice(i * width, (i + 1) * width))
    read.set(name, matrix)
    return matrix
  }
})()

/** Logits behind each token of the prompt. */
export function oracleLogits(tokens: readonly number[], adapter: OracleAdapter = {}): Matrix {
  const weightOf = (name: string): Matrix => adapter.weight?.(name, baseWeight(name)) ?? baseWeight(name)
  const linear = (site: string, x: Row): Row => {
    const weight = weightOf(hfName(site))
    const y = matVec(weight, x)
    return adapter.linear?.(site, x, y, weight) ?? y
  }
  const norm = (site: string, name: string, x: Row): Row => {
    const y = rmsNorm(x, weightOf(name)[0]!, EPS)
    return adapter.norm?.(site, y) ?? y
  }
  const table = weightOf('model.embed_tokens.weight')
  const embedded = tokens.map((token, i) => adapter.embed?.(table[token]!, i) ?? table[token]!)
  let stream: Matrix = [...(adapter.softPrompt ?? []), ...embedded]
  for (let layer = 0; layer < SHAPE.layers; layer++) {
    const at = `layers.${layer}`
    const entering = stream.map((row, i) => adapter.blockInput?.(layer, row, i) ?? row)
    const normed = entering.map((row) => norm(`${at}.preAttn`, `model.layers.${layer}.input_layernorm.weight`, row))
    const prefix = adapter.prefix?.[layer] ?? { keys: [], values: [] }
    const heads = attention(normed, prefix, (role, x) => linear(`${at}.${role}`, x))
    const middle = entering.map((residual, i) => {
      const f = linear(`${at}.o`, heads[i]!)
      return add(residual, adapter.sublayer?.(`${at}.attnOut`, { f, residual, normed: normed[i]! }) ?? f)
    })
    stream = middle.map((residual) => {
      const n = norm(`${at}.preMlp`, `model.layers.${layer}.post_attention_layernorm.weight`, residual)
      const inner = times(linear(`${at}.gate`, n).map(silu), linear(`${at}.up`, n))
      const f = linear(`${at}.down`, inner)
      return add(residual, adapter.sublayer?.(`${at}.mlpOut`, { f, residual, normed: n }) ?? f)
    })
  }
  return stream.slice(stream.length - tokens.length).map((row) => linear('lmHead', norm('finalNorm', 'model.norm.weight', row)))
}

function attention(
  rows: Matrix,
  prefix: { readonly keys: Matrix; readonly values: Matrix },
  project: (role: Role, x: Row) => Row,
): Matrix {
  const { heads, kvHeads, headDim } = SHAPE
  const offset = prefix.keys.length
  const queries = rows.map((row, i) => rotate(project('q', row), i + offset))
  const keys = [...prefix.keys, ...rows.map((row, i) => rotate(project('k', row), i + offset))]
  const values = [...prefix.values, ...rows.map((row) => project('v', row))]
  const headOf = (row: Row, head: number) => row.slice(head * headDim, (head + 1) * headDim)
  return queries.map((query, i) => {
    return Array.from({ length: heads }, (_, head) => {
      const kv = Math.floor(head / (heads / kvHeads))
      const visible = keys.slice(0, offset + i + 1)
      const weights = softmax(visible.map((key) => dot(headOf(query, head), headOf(key, kv)) / Math.sqrt(headDim)))
      return weights.reduce<Row>(
        (sum, weight, j) => add(sum, scaled(headOf(values[j]!, kv), weight)),
        new Array(headDim).fill(0),
      )
    }).flat()
  })
}

/** Rotary positions (arXiv:2104.09864), the halves of a head as pairs. */
function rotate(row: Row, position: number): Row {
  const { headDim } = SHAPE
  const half = headDim / 2
  return row.map((value, i) => {
    const at = i % headDim
    const angle = position / ROPE_THETA ** ((2 * (at % half)) / headDim)
    const other = at < half ? -row[i + half]! : row[i - half]!
    return value * Math.cos(angle) + other * Math.sin(angle)
  })
}
