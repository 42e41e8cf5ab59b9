// One group of linears with everything adapters may add to it, in the folded form of adapter-arena.ts:
//
//   out = (x · inputScale) W^T · factor + shift + (x A^T) B
//
// Low-rank rows are tiles: a few token rows of one adapter against that adapter's rank rows, in one batched product.

import { at } from '../../core/invariant.ts'
import { groupBias, type LinearGroup } from './decoder-layout.ts'
import type { Value } from './graph-builder.ts'
import { type GraphContext, gatherEntries } from './graph-context.ts'
import { entriesOf } from './graph-norm.ts'

/** Rank rows a page: the smallest rank in common use, and one AVX2 register of floats. */
export const PAGE_RANK = 8

/** x [numTokens, numIn] -> [numTokens, numOut]. */
export function linear(context: GraphContext, group: LinearGroup, x: Value): Value {
  const { graph, variant } = context
  let z = variant.hasVectors ? vectorLinear(context, group, x) : baseLinear(context, group, x, true)
  if (variant.lowRank !== 'none') z = graph.node('Add', [z, lowRankDelta(context, group, x)])
  return z
}

/** x W^T (+ bias) of the base model. */
export function baseLinear({ graph, model, store }: GraphContext, group: LinearGroup, x: Value, withBias: boolean): Value {
  const external = store.weights.get(group.name)
  const weight = graph.weight(group.name, 'float32', [group.numOut, group.numIn], external ?? new Map())
  const bias = withBias ? groupBias(model, group) : null
  const inputs = bias === null ? [x, weight] : [x, weight, graph.floats(`${group.name}.bias`, [group.numOut], bias)]
  return graph.node('Gemm', inputs, { transB: 1 })
}

function vectorLinear(context: GraphContext, group: LinearGroup, x: Value): Value {
  const { graph, variant } = context
  const entries = entriesOf(context)
  const scaled = (site: string) => graph.node('Mul', [x, gatherEntries(context, `${site}.inputScale`, group.numIn, entries)])
  let z: Value
  if (group.parts.length === 1) z = baseLinear(context, group, scaled(at(group.parts, 0).site), false)
  else if (variant.hasSplitInputs) {
    // The packed weights multiply all parts at once; each part keeps its own columns of its own product.
    let start = 0
    const products = group.parts.map(({ site, numOut }) => {
      const product = baseLinear(context, group, scaled(site), false)
      const bounds = [graph.ints([start]), graph.ints([start + numOut]), graph.ints([1])]
      start += numOut
      return graph.node('Slice', [product, ...bounds])
    })
    z = graph.node('Concat', products, { axis: 1 })
  } else z = baseLinear(context, group, x, false)
  z = graph.node('Mul', [z, gatherEntries(context, `${group.name}.factor`, group.numOut, entries)])
  return graph.node('Add', [z, gatherEntries(context, `${group.name}.shift`, group.numOut, entries)])
}

/** z [numTokens, numOut] cut into the columns of each part. */
export function splitParts({ graph }: GraphContext, group: LinearGroup, z: Value): Value[] {
  const sizes = graph.ints(group.parts.map(({ numOut }) => numOut))
  return graph.nodes('Split', [z, sizes], group.parts.length, { axis: 1 })
}

/** (x A^T) B of each token's adapter. [numTokens, numOut] */
function lowRankDelta(context: GraphContext, group: LinearGroup, x: Value): Value {
  const { graph, variant } = context
  const kind = groupKind(group)
  const isAligned = variant.lowRank === 'aligned'
  const rows = isAligned
    ? graph.node('Reshape', [x, graph.ints([-1, 1, group.numIn])])
    : graph.node('Gather', [x, graph.input('tile.rows', 'int32', ['numTiles', 'tileRows'])], { axis: 0 })
  const a = tileWeights(context, `${group.name}.a`, `${kind}.a`, group.numIn)
  const shrunk = graph.node('FusedMatMul', [rows, a], { transB: 1 })
  const numParts = group.parts.length
  const ranks = () => graph.input(`tile.ranks.${kind}`, 'int64', [numParts])
  const inner = numParts === 1 ? [shrunk] : graph.nodes('Split', [shrunk, ranks()], numParts, { axis: 2 })
  const deltas = group.parts.map(({ site, numOut }, part) => {
    const b = tileWeights(context, `${site}.b`, `${partKind(site)}.b`, numOut)
    return graph.node('MatMul', [at(inner, part), b])
  })
  const delta = deltas.length === 1 ? at(deltas, 0) : graph.node('Concat', deltas, { axis: 2 })
  const flat = graph.node('Reshape', [delta, graph.ints([-1, group.numOut])])
  if (isAligned) return flat
  const ofToken = graph.node('Gather', [flat, graph.input('tile.ofToken', 'int32', ['numTokens'])], { axis: 0 })
  if (variant.lowRank === 'gathered') return ofToken
  // A row without adapter reads some tile's row; a product with zero would let its infinities through.
  const isAdapted = graph.input('tile.isAdapted', 'bool', ['numTokens', 1])
  return graph.node('Where', [isAdapted, ofToken, graph.scalar(0)])
}

/** Rank rows of each tile: [numTiles, rank, width]. */
function tileWeights({ graph, variant }: GraphContext, input: string, kind: string, width: number): Value {
  if (variant.lowRank !== 'gathered') return graph.input(input, 'float32', [`${kind}.numTiles`, `${kind}.rank`, width])
  const values = graph.input(input, 'float32', ['numPages', PAGE_RANK * width])
  const indices = graph.input(`tile.pages.${kind}`, 'int32', ['numTiles', `${kind}.pages`])
  return graph.node('Reshape', [graph.node('Gather', [values, indices], { axis: 0 }), graph.ints([0, -1, width])])
}

/** `qkv`, `o`, `mlpIn`, `down`: page numbers are the same in every layer. */
export function groupKind(group: LinearGroup): string {
  return group.name.split('.').at(-1) as string
}

export function partKind(site: string): string {
  return site.split('.').at(-1) as string
}
