// Attention over paged keys and values. The pool is an input; the step's own keys and values are not in it yet, so they are
// scattered into the gathered copy (in place) and are also outputs, which the caller writes to the pool after the step.
//
//   pages [numSeqs, numKvHeads, numBlocks]  ->  K [numSeqs, numKvHeads, context, headDim]
//   scores = q K^T + mask                          [numSeqs, numKvHeads, rows, context]
//
// Query heads that share a KV head are rows of one product (GQA, arXiv:2305.13245): keys are read once for all of them, and
// onnxruntime's product of one row with a transposed matrix is three times as slow.
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
  const { numHeads, numKvHeads, headDim } = spec
  const groupSize = numHeads / numKvHeads
  const layer = at(spec.layers, index)
  const { queries, keys, values } = rotated(context, index, layer, qkv)
  const asRows = (mixed: Value) => graph.node('Reshape', [mixed, graph.ints([-1, numHeads * headDim])])
  const grouped = (value: Value) => graph.node('Reshape', [value, graph.ints([-1, numKvHeads, groupSize, headDim])])
  if (!variant.hasChunks) {
    return { mixed: asRows(attend(context, 'decode', index, layer, { queries: grouped(queries), keys, values })), keys, values }
  }
  const pick = (value: Value, rows: string, dims: readonly string[]) =>
    graph.node('Gather', [value, graph.input(rows, 'int32', dims)], { axis: 0 })
  const ownOf = (family: Family) => ({
    keys: pick(keys, `${family}.tokens`, [`${family}.numTokens`]),
    values: pick(values, `${family}.tokens`, [`${family}.numTokens`]),
  })
  const decodeQueries = grouped(pick(queries, 'decode.queryTokens', ['decode.numSeqs']))
  const decoded = attend(context, 'decode', index, layer, { queries: decodeQueries, ...ownOf('decode') })
  const chunkRows = pick(queries, 'chunk.queryTokens', ['chunk.numSeqs', 'chunk.queries'])
  const chunkHeads = graph.node('Reshape', [chunkRows, graph.ints([0, 0, numKvHeads, groupSize, headDim])])
  const chunkQueries = graph.node('Transpose', [chunkHeads], { perm: [0, 2, 3, 1, 4] })
  const chunk = attend(context, 'chunk', index, layer, { queries: chunkQueries, ...ownOf('chunk') })
  const chunkMixed = graph.node('Transpose', [chunk], { perm: [0, 3, 1, 2, 4] })
  const both = graph.node('Concat', [asRows(decoded), asRows(chunkMixed)], { axis: 0 })
  return { mixed: pick(both, 'attention.rowOfToken', ['numTokens']), keys, values }
}

interface Projected {
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

/** `queries` as rows per KV head: decode [numSeqs, numKvHeads, group, headDim], chunk [numSeqs, numKvHeads, group, queries, headDim]. */
function attend(context: GraphContext, family: Family, index: number, layer: LayerSpec, own: Projected): Value {
  const { graph, spec } = context
  const isDecode = family === 'decode'
  const k = pagedRows(context, family, index, 'keyPages', own.keys)
  const v = pagedRows(context, family, index, 'valuePages', own.values)
  let scores = graph.node('FusedMatMul', [own.queries, k], { transB: 1, alpha: { float: spec.attentionScale } })
  if (spec.attentionSoftcap !== null) scores = softcap(context, scores, spec.attentionSoftcap)
  const maskDims = isDecode
    ? ['decode.numSeqs', 1, 1, 'decode.context']
    : ['chunk.numSeqs', 1, 1, 'chunk.queries', 'chunk.context']
  scores = graph.node('Add', [scores, graph.input(maskName(family, layer.slidingWindow), 'float32', maskDims)])
  return graph.node('MatMul', [graph.node('Softmax', [scores], { axis: -1 }), v])
}

/**
 * Pages of each sequence with the step's own rows in place: [numSeqs, numKvHeads, context, headDim], and one more axis for
 * the query heads of a group in a chunk.
 */
function pagedRows(context: GraphContext, family: Family, index: number, pages: string, own: Value): Value {
  const { graph, spec, blockSize } = context
  const pool = graph.input(`kv.${index}`, 'float32', ['numHeadPages', blockSize, spec.headDim])
  const indices = graph.input(`${family}.${pages}`, 'int32', [`${family}.numSeqs`, spec.numKvHeads, `${family}.numBlocks`])
  // The scatter works in place only on a tensor whose shape is known by name, hence before the reshape: otherwise it
  // copies the whole context (measured: 10 % of a step of 16 sequences).
  const gathered = graph.node('Gather', [pool, indices], { axis: 0 })
  const targets = graph.input(`${family}.ownRows`, 'int64', [`${family}.numTokens`, spec.numKvHeads, 4])
  const rows = graph.node('ScatterND', [gathered, targets, own])
  const shape = family === 'decode' ? [0, 0, -1, spec.headDim] : [0, 0, 1, -1, spec.headDim]
  return graph.node('Reshape', [rows, graph.ints(shape)])
}

/** cap · tanh(x / cap) */
export function softcap({ graph }: GraphContext, x: Value, cap: number): Value {
  const bounded = graph.node('Tanh', [graph.node('Div', [x, graph.scalar(cap)])])
  return graph.node('Mul', [bounded, graph.scalar(cap)])
}
