// Attention over paged keys and values. The pool is an input; the step's own keys and values are not in it yet, so scores
// and sums are made of two parts, past and own. The own ones are also outputs, which the caller writes to the pool after the
// step. (Scattering them into the gathered pages copied the whole context: 10 % of a step of 16 sequences.)
//
//   pages [numSeqs, numKvHeads, numBlocks]  ->  K [numSeqs, numKvHeads, context, headDim]
//   scores = [q K^T | q Kown^T] + mask             [numSeqs, numKvHeads, rows, context + own]
//
// Query heads that share a KV head are rows of one product (GQA, arXiv:2305.13245): keys are read once for all of them, and
// onnxruntime's product of one row with a transposed matrix is more than twice as slow.
//
// Decode rows (one query a sequence) and prompt chunks are separate families: padded together, one chunk of 256 would make
// every decode row as expensive as itself.

import { at } from '../../core/invariant.ts'
import type { LayerSpec } from '../../model/decoder-spec.ts'
import { addSideAttention, hasSideAttention, type PrefixGates, prefixGates } from './extras/layer-hooks.ts'
import type { Value } from './graph-builder.ts'
import { distinctRopes, type GraphContext, maskName, ropeKey } from './graph-context.ts'
import { entriesOf, normalize } from './graph-norm.ts'
import { splitParts } from './split-parts.ts'

export interface AttentionOutput {
  /** [numTokens, numHeads * headDim] */
  readonly mixed: Value
  /** The step's own, rotated. [numTokens, numKvHeads, 1, headDim] */
  readonly keys: Value
  readonly values: Value
}

type Family = 'decode' | 'chunk'

/** `qkv` [numTokens, q | k | v], made from `normed` [numTokens, hidden]. */
export function attention(context: GraphContext, index: number, qkv: Value, normed: Value): AttentionOutput {
  const { graph, spec } = context
  const own = rotated(context, index, at(spec.layers, index), qkv)
  const heads = mixedHeads(context, index, own, prefixGates(context, index, normed))
  const queries = () => graph.node('Reshape', [own.queries, graph.ints([-1, spec.numHeads * spec.headDim])])
  const mixed = hasSideAttention(context, index) ? addSideAttention(context, index, queries(), heads) : heads
  return { mixed, keys: own.keys, values: own.values }
}

/** [numTokens, numHeads * headDim] */
function mixedHeads(context: GraphContext, index: number, own: Projected, gates: PrefixGates | null): Value {
  const { graph, spec, variant } = context
  const layer = at(spec.layers, index)
  const asRows = (mixed: Value) => graph.node('Reshape', [mixed, graph.ints([-1, spec.numHeads * spec.headDim])])
  if (!variant.hasChunks) return asRows(attend(context, 'decode', index, layer, own, gates))
  const pick = (value: Value, rows: string, dims: readonly string[]) =>
    graph.node('Gather', [value, graph.input(rows, 'int32', dims)], { axis: 0 })
  const decodeRows = (value: Value) => pick(value, 'decode.queryTokens', ['decode.numSeqs'])
  const decodeGates = gates && { keys: decodeRows(gates.keys), values: decodeRows(gates.values) }
  const decoded = attend(context, 'decode', index, layer, each(own, decodeRows), decodeGates)
  const chunkRows = (value: Value) => {
    const rows = pick(value, 'chunk.queryTokens', ['chunk.numSeqs', 'chunk.queries'])
    return graph.node('Transpose', [rows], { perm: [0, 2, 3, 1, 4] })
  }
  const gateRows = (value: Value) => pick(value, 'chunk.queryTokens', ['chunk.numSeqs', 'chunk.queries'])
  const chunkGates = gates && { keys: gateRows(gates.keys), values: gateRows(gates.values) }
  const chunk = attend(context, 'chunk', index, layer, each(own, chunkRows), chunkGates)
  const chunkMixed = graph.node('Transpose', [chunk], { perm: [0, 3, 1, 2, 4] })
  const both = graph.node('Concat', [asRows(decoded), asRows(chunkMixed)], { axis: 0 })
  return pick(both, 'attention.rowOfToken', ['numTokens'])
}

interface Projected {
  /** [numTokens, numKvHeads, query heads of the group, headDim] */
  readonly queries: Value
  /** [numTokens, numKvHeads, 1, headDim] */
  readonly keys: Value
  readonly values: Value
}

function each({ queries, keys, values }: Projected, map: (value: Value) => Value): Projected {
  return { queries: map(queries), keys: map(keys), values: map(values) }
}

function rotated(context: GraphContext, index: number, layer: LayerSpec, qkv: Value): Projected {
  const { graph, spec } = context
  const { numHeads, numKvHeads, headDim } = spec
  const heads = (value: Value, groupSize: number) =>
    graph.node('Reshape', [value, graph.ints([-1, numKvHeads, groupSize, headDim])])
  const shaped = (q: Value, k: Value, v: Value): Projected => ({
    queries: heads(q, numHeads / numKvHeads),
    keys: heads(k, 1),
    values: heads(v, 1),
  })
  const qWidth = numHeads * headDim
  const kWidth = numKvHeads * headDim
  if (spec.qkNorm === 'none' && layer.rope !== null) {
    // Queries and keys turn by the same angles, so they rotate as one row.
    const row = asSequence(context, qkv, qWidth + 2 * kWidth)
    const [qk, v] = graph.nodes('Split', [row, graph.ints([qWidth + kWidth, kWidth])], 2, { axis: 2 })
    const turned = rotate(context, layer, qk as Value, numHeads + numKvHeads)
    const [q, k] = graph.nodes('Split', [turned, graph.ints([qWidth, kWidth])], 2, { axis: 2 })
    return shaped(q as Value, k as Value, v as Value)
  }
  const [q, k, v] = splitParts(context, at(context.layout.layers, index).qkv, qkv) as [Value, Value, Value]
  const normed = (value: Value, role: 'qNorm' | 'kNorm', count: number) => {
    const x = normalizeHeads(context, value, `layers.${index}.${role}`)
    return layer.rope === null ? x : rotate(context, layer, asSequence(context, x, count * headDim), count)
  }
  return shaped(normed(q, 'qNorm', numHeads), normed(k, 'kNorm', numKvHeads), v)
}

function normalizeHeads(context: GraphContext, x: Value, site: string): Value {
  const { graph, spec } = context
  if (spec.qkNorm === 'none') return x
  if (spec.qkNorm === 'row') return normalize(context, x, site, entriesOf(context))
  const heads = graph.node('Reshape', [x, graph.ints([0, -1, spec.headDim])])
  return graph.node('Reshape', [normalize(context, heads, site, entriesOf(context), true), graph.ints([0, -1])])
}

/** RotaryEmbedding's form of rows: [1, numTokens, width]. Its tables are fed by token, so position i of the one sequence is row i. */
function asSequence({ graph }: GraphContext, rows: Value, width: number): Value {
  return graph.node('Reshape', [rows, graph.ints([1, -1, width])])
}

/** x [1, numTokens, numHeads * headDim], the same shape out. */
function rotate({ graph, spec }: GraphContext, layer: LayerSpec, x: Value, numHeads: number): Value {
  if (layer.rope === null) return x
  const { rotaryDim } = layer.rope
  const key = ropeKey(layer.rope)
  const rope = distinctRopes(spec).findIndex((each) => ropeKey(each) === key)
  const table = (name: string) => graph.input(`rope.${rope}.${name}`, 'float32', ['numTokens', rotaryDim / 2])
  const attributes =
    rotaryDim === spec.headDim ? { num_heads: numHeads } : { num_heads: numHeads, rotary_embedding_dim: rotaryDim }
  return graph.node('RotaryEmbedding', [x, graph.ints([0]), table('cos'), table('sin')], attributes)
}

/** Rows per KV head in, the shape of the queries out: chunks have a `queries` axis before headDim. */
function attend(
  context: GraphContext,
  family: Family,
  index: number,
  layer: LayerSpec,
  own: Projected,
  gates: PrefixGates | null,
): Value {
  const { graph, spec } = context
  const product = { transB: 1, alpha: { float: spec.attentionScale } }
  let past = graph.node('FusedMatMul', [own.queries, pagedRows(context, family, index, 'keyPages')], product)
  // (g k) q = g (k q): the pool keeps the prefix as it is, and all sequences of the adapter share it.
  if (gates !== null) past = gated(context, family, past, gates.keys)
  let scores = graph.node('Concat', [past, graph.node('FusedMatMul', [own.queries, own.keys], product)], { axis: -1 })
  if (spec.attentionSoftcap !== null) scores = softcap(context, scores, spec.attentionSoftcap)
  const rowDims = family === 'decode' ? ['decode.keys'] : ['chunk.queries', 'chunk.keys']
  const mask = graph.input(maskName(family, layer.slidingWindow), 'float32', [`${family}.numSeqs`, 1, 1, ...rowDims])
  const weights = graph.node('Softmax', [graph.node('Add', [scores, mask])], { axis: -1 })
  const [ofPast, ofOwn] = graph.nodes('Split', [weights, graph.input(`${family}.keyCounts`, 'int64', [2])], 2, { axis: -1 })
  const pastWeights = gates === null ? (ofPast as Value) : gated(context, family, ofPast as Value, gates.values)
  const mixed = graph.node('MatMul', [pastWeights, pagedRows(context, family, index, 'valuePages')])
  return graph.node('Add', [mixed, graph.node('MatMul', [ofOwn as Value, own.values])])
}

/** Columns of gated prefixes times their row's gate; `gate` has one value a query. */
function gated({ graph }: GraphContext, family: Family, past: Value, gate: Value): Value {
  const keyDims = family === 'decode' ? [1, 1, `${family}.pastKeys`] : [1, 1, 1, `${family}.pastKeys`]
  const isGated = graph.input(`${family}.isGated`, 'bool', [`${family}.numSeqs`, ...keyDims])
  const byQuery = graph.node('Reshape', [gate, graph.ints(family === 'decode' ? [-1, 1, 1, 1] : [0, 1, 1, -1, 1])])
  return graph.node('Mul', [past, graph.node('Where', [isGated, byQuery, graph.scalar(1)])])
}

/** Pages of each sequence: [numSeqs, numKvHeads, context, headDim], and one more axis for the query heads of a group in a chunk. */
function pagedRows({ graph, spec, blockSize }: GraphContext, family: Family, index: number, pages: string): Value {
  const pool = graph.input(`kv.${index}`, 'float32', ['numHeadPages', blockSize, spec.headDim])
  const indices = graph.input(`${family}.${pages}`, 'int32', [`${family}.numSeqs`, spec.numKvHeads, `${family}.numBlocks`])
  const shape = family === 'decode' ? [0, 0, -1, spec.headDim] : [0, 0, 1, -1, spec.headDim]
  return graph.node('Reshape', [graph.node('Gather', [pool, indices], { axis: 0 }), graph.ints(shape)])
}

/** cap · tanh(x / cap) */
export function softcap({ graph }: GraphContext, x: Value, cap: number): Value {
  const bounded = graph.node('Tanh', [graph.node('Div', [x, graph.scalar(cap)])])
  return graph.node('Mul', [bounded, graph.scalar(cap)])
}
