// One group of linears with everything adapters may add to it, in the folded form of adapter-arena.ts:
//
//   out = (x · inputScale) W^T · factor + shift + (x A^T) B
//
// Low-rank rows are tiles: up to tileRows token rows of one adapter against that adapter's rank pages, gathered from the
// arena once a tile. Page 0 is all zeros and pads both ranks and rows, so that ranks mix and rows without adapter get zero.

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
  if (variant.hasLowRank) z = graph.node('Add', [z, lowRankDelta(context, group, x)])
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
  const { graph } = context
  const kind = groupKind(group)
  const tileRows = graph.input('tile.rows', 'int32', ['numTiles', 'tileRows'])
  const rows = graph.node('Gather', [x, tileRows], { axis: 0 })
  const a = gatherPages(context, `${group.name}.a`, `tile.pages.${kind}.a`, group.numIn)
  const shrunk = graph.node('FusedMatMul', [rows, a], { transB: 1 })
  const ranks =
    group.parts.length === 1
      ? [shrunk]
      : graph.nodes('Split', [shrunk, graph.input(`tile.ranks.${kind}`, 'int64', [group.parts.length])], group.parts.length, {
          axis: 2,
        })
  const deltas = group.parts.map(({ site, numOut }, part) => {
    const b = gatherPages(context, `${site}.b`, `tile.pages.${partKind(site)}.b`, numOut)
    return graph.node('MatMul', [at(ranks, part), b])
  })
  const delta = deltas.length === 1 ? at(deltas, 0) : graph.node('Concat', deltas, { axis: 2 })
  const flat = graph.node('Reshape', [delta, graph.ints([-1, group.numOut])])
  return graph.node('Gather', [flat, graph.input('tile.ofToken', 'int32', ['numTokens'])], { axis: 0 })
}

/** Pages of each tile side by side: [numTiles, rank, width]. */
function gatherPages({ graph }: GraphContext, arena: string, pages: string, width: number): Value {
  const values = graph.input(arena, 'float32', ['numPages', PAGE_RANK * width])
  const indices = graph.input(pages, 'int32', ['numTiles', `${pages}.numPages`])
  return graph.node('Reshape', [graph.node('Gather', [values, indices], { axis: 0 }), graph.ints([0, -1, width])])
}

/** `qkv`, `o`, `mlpIn`, `down`: page numbers are the same in every layer. */
export function groupKind(group: LinearGroup): string {
  return group.name.split('.').at(-1) as string
}

export function partKind(site: string): string {
  return site.split('.').at(-1) as string
}
