// Attention over paged keys and values. The pool is an input; the step's own keys and values are not in it yet, so they are
// scattered into the gathered copy (in place) and are also outputs, which the caller writes to the pool after the step.
//
//   pages [numSeqs, numKvHeads, numBlocks]  ->  K [numSeqs, numKvHeads, 1, context, headDim]
//   scores = q K^T + mask                       [numSeqs, numKvHeads, group, queries, context]
//
// Decode rows (one query a sequence) and prompt chunks are separate families: padded together, one chunk of 256 would make
// every decode row as expensive as itself.

import { at } from '../../core/invariant.ts'
import type { LayerSpec } from '../../model/decoder-spec.ts'
import type { Value } from './graph-builder.ts'
import { distinctRopes, type GraphContext, maskName, ropeKey } from './graph-context.ts'
import { splitParts } from './graph-linear.ts'
import { entriesOf, normalize } from './graph-norm.ts'

export interface AttentionOutput {
  /** [numTokens, numHeads * headDim] */
  readonly mixed: Value
  /** The step's own, rotated. [numTokens, numKvHeads, headDim] */
  readonly keys: Value
  readonly values: Value
}

type Family = 'decode' | 'chunk'

/** `qkv` [numTokens, q | k | v]. */
export function attention(context: GraphContext, index: number, qkv: Value): AttentionOutput {
  const { graph, spec, variant } = context
  const layer = at(spec.layers, index)
  const { queries, keys, values } = rotated(context, index, layer, qkv)
  if (!variant.hasChunks) {
    const mixed = attend(context, 'decode', index, layer, { queries, keys, values })
    return { mixed: graph.node('Reshape', [mixed, graph.ints([-1, spec.numHeads * spec.headDim])]), keys, values }
  }
  const rowsOf = (family: Family, value: Value) => {
    const tokens = graph.input(`${family}.tokens`, 'int32', [`${family}.numTokens`])
    return graph.node('Gather', [value, tokens], { axis: 0 })
  }
  const mixed = (['decode', 'chunk'] as const).map((family) => {
    const rows = graph.input(`${family}.queryTokens`, 'int32', [`${family}.numSeqs`, `${family}.queries`])
    const familyQueries = graph.node('Gather', [queries, rows], { axis: 0 })
    const own = { queries: familyQueries, keys: rowsOf(family, keys), values: rowsOf(family, values) }
    const out = graph.node('Transpose', [attend(context, family, index, layer, own)], { perm: [0, 3, 1, 2, 4] })
    return graph.node('Reshape', [out, graph.ints([-1, spec.numHeads * spec.headDim])])
  })
  const order = graph.input('attention.rowOfToken', 'int32', ['numTokens'])
  return { mixed: graph.node('Gather', [graph.node('Concat', mixed, { axis: 0 }), order], { axis: 0 }), keys, values }
}

interface Projected {
  /** Decode only: [numTokens, numHeads * headDim]. With chunks: [numSeqs, queries, numHeads * headDim]. */
  readonly queries: Value
  /** [numTokens, numKvHeads, headDim] */
  readonly keys: Value
  readonly values: Value
}

function rotated(context: GraphContext, index: number, layer: LayerSpec, qkv: Value): Projected {
  const { graph, spec } = context
  const { numHeads, numKvHeads, headDim } = spec
  const heads = (value: Value) => graph.node('Reshape', [value, graph.ints([-1, numKvHeads, headDim])])
  const qWidth = numHeads * headDim
  const kWidth = numKvHeads * headDim
  if (spec.qkNorm === 'none' && layer.rope !== null) {
    // Queries and keys turn by the same angles, so they rotate as one row.
    const [qk, v] = graph.nodes('Split', [qkv, graph.ints([qWidth + kWidth, kWidth])], 2, { axis: 1 })
    const turned = rotate(context, layer, qk as Value, numHeads + numKvHeads)
    const [q, k] = graph.nodes('Split', [turned, graph.ints([qWidth, kWidth])], 2, { axis: 1 })
    return { queries: q as Value, keys: heads(k as Value), values: heads(v as Value) }
  }
  const [q, k, v] = splitParts(context, at(context.layout.layers, index).qkv, qkv) as [Value, Value, Value]
  const normed = (value: Value, role: 'qNorm' | 'kNorm', count: number) => {
    const x = normalizeHeads(context, value, `layers.${index}.${role}`)
    return layer.rope === null ? x : rotate(context, layer, x, count)
  }
  return { queries: normed(q, 'qNorm', numHeads), keys: heads(normed(k, 'kNorm', numKvHeads)), values: heads(v) }
}

function normalizeHeads(context: GraphContext, x: Value, site: string): Value {
  const { graph, spec } = context
  if (spec.qkNorm === 'none') return x
  if (spec.qkNorm === 'row') return normalize(context, x, site, entriesOf(context))
  const heads = graph.node('Reshape', [x, graph.ints([0, -1, spec.headDim])])
  return graph.node('Reshape', [normalize(context, heads, site, entriesOf(context), true), graph.ints([0, -1])])
}

/** x [numTokens, numHeads * headDim]. */
function rotate({ graph, spec }: GraphContext, layer: LayerSpec, x: Value, numHeads: number): Value {
  if (layer.rope === null) return x
  const { rotaryDim } = layer.rope
  const key = ropeKey(layer.rope)
  const rope = distinctRopes(spec).findIndex((each) => ropeKey(each) === key)
  const table = (name: string) => graph.input(`rope.${rope}.${name}`, 'float32', ['numTokens', rotaryDim / 2])
  const width = numHeads * spec.headDim
  // The tables are fed by token, so position i of the one "sequence" is row i.
  const start = graph.ints([0])
  const inputs = [graph.node('Reshape', [x, graph.ints([1, -1, width])]), start, table('cos'), table('sin')]
  const attributes =
    rotaryDim === spec.headDim ? { num_heads: numHeads } : { num_heads: numHeads, rotary_embedding_dim: rotaryDim }
  return graph.node('Reshape', [graph.node('RotaryEmbedding', inputs, attributes), graph.ints([-1, width])])
}

/** Answers [numSeqs, numKvHeads, group, queries, headDim]. */
function attend(context: GraphContext, family: Family, index: number, layer: LayerSpec, own: Projected): Value {
  const { graph, spec } = context
  const { numHeads, numKvHeads, headDim } = spec
  const groupSize = numHeads / numKvHeads
  const q =
    family === 'decode' && !context.variant.hasChunks
      ? graph.node('Reshape', [own.queries, graph.ints([-1, numKvHeads, groupSize, 1, headDim])])
      : graph.node('Transpose', [graph.node('Reshape', [own.queries, graph.ints([0, 0, numKvHeads, groupSize, headDim])])], {
          perm: [0, 2, 3, 1, 4],
        })
  const k = pagedRows(context, family, index, 'keyPages', own.keys)
  const v = pagedRows(context, family, index, 'valuePages', own.values)
  let scores = graph.node('FusedMatMul', [q, k], { transB: 1, alpha: { float: spec.attentionScale } })
  if (spec.attentionSoftcap !== null) scores = softcap(context, scores, spec.attentionSoftcap)
  const maskDims = [`${family}.numSeqs`, 1, 1, `${family}.queries`, `${family}.context`]
  scores = graph.node('Add', [scores, graph.input(maskName(family, layer.slidingWindow), 'float32', maskDims)])
  return graph.node('MatMul', [graph.node('Softmax', [scores], { axis: -1 }), v])
}

/** Pages of each sequence with the step's own rows in place. [numSeqs, numKvHeads, 1, context, headDim] */
function pagedRows(context: GraphContext, family: Family, index: number, pages: string, own: Value): Value {
  const { graph, spec, blockSize } = context
  const pool = graph.input(`kv.${index}`, 'float32', ['numHeadPages', blockSize * spec.headDim])
  const indices = graph.input(`${family}.${pages}`, 'int32', [`${family}.numSeqs`, spec.numKvHeads, `${family}.numBlocks`])
  const gathered = graph.node('Gather', [pool, indices], { axis: 0 })
  const rows = graph.node('Reshape', [gathered, graph.ints([0, 0, 1, -1, spec.headDim])])
  const targets = graph.input(`${family}.ownRows`, 'int64', [`${family}.numTokens`, spec.numKvHeads, 4])
  return graph.node('ScatterND', [rows, targets, own])
}

/** cap · tanh(x / cap) */
export function softcap({ graph }: GraphContext, x: Value, cap: number): Value {
  const bounded = graph.node('Tanh', [graph.node('Div', [x, graph.scalar(cap)])])
  return graph.node('Mul', [bounded, graph.scalar(cap)])
}
