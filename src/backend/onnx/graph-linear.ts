// One group of linears with everything adapters may add to it, in the folded form of adapter-arena.ts:
//
//   out = (x · inputScale) W^T · factor + shift + (x A^T) B
//
// Low-rank rows are tiles: a few token rows of one adapter against that adapter's rank rows, in one batched product.

import { at } from '../../core/invariant.ts'
import { groupBias, type LinearGroup, matricesOf } from './decoder-layout.ts'
import { beforeSite, behindSite, hasOutputStages, hasStages, turned } from './extras/linear-stages.ts'
import type { Value } from './graph-builder.ts'
import { type GraphContext, gatherEntries } from './graph-context.ts'
import { entriesOf } from './graph-norm.ts'
import { splitParts } from './split-parts.ts'

/** Rank rows a page: the smallest rank in common use, and one AVX2 register of floats. */
export const PAGE_RANK = 8

/** x [numTokens, numIn] -> [numTokens, numOut]. */
export function linear(context: GraphContext, group: LinearGroup, x: Value): Value {
  const { graph } = context
  // What each part reads: one value for all of them unless an adapter changes it for some.
  const inputs = group.parts.map(({ site }) => beforeSite(context, site, x))
  const turnedInputs = group.parts.map(({ site }, part) => turned(context, site, at(inputs, part)))
  const z = updatedProduct(context, group, x, turnedInputs, lowRankDelta(context, group, inputs))
  if (!group.parts.some((part) => hasOutputStages(context, part))) return z
  const columns = group.parts.length === 1 ? [z] : splitParts(context, group, z)
  const outputs = group.parts.map(({ site }, part) => behindSite(context, site, at(inputs, part), at(columns, part)))
  return outputs.length === 1 ? at(outputs, 0) : graph.node('Concat', outputs, { axis: 1 })
}

/** x [numTokens, numIn] -> each part's [numTokens, numOut]. */
export function linearParts(context: GraphContext, group: LinearGroup, x: Value): readonly Value[] {
  const { graph, variant, model } = context
  const isPlain = !variant.hasVectors && group.parts.every((part) => !hasStages(context, part))
  if (!group.isApart || !isPlain) return splitParts(context, group, linear(context, group, x))
  const inputs = group.parts.map(() => x)
  const deltas = lowRankParts(context, group, inputs).map((delta, part) =>
    tokenRows(context, delta, at(group.parts, part).numOut),
  )
  return matricesOf(group).map((matrix, part) => {
    const delta = deltas[part] ?? null
    if (groupBias(model, matrix) === null) return product(context, matrix, x, delta)
    const z = baseLinear(context, matrix, x, true)
    return delta === null ? z : graph.node('Add', [z, delta])
  })
}

/** x W^T of each part. */
export function baseParts(context: GraphContext, group: LinearGroup, x: Value): readonly Value[] {
  if (!group.isApart) return splitParts(context, group, baseLinear(context, group, x, false))
  return matricesOf(group).map((matrix) => baseLinear(context, matrix, x, false))
}

/** Base product with vectors, plus the low-rank delta. */
function updatedProduct(
  context: GraphContext,
  group: LinearGroup,
  x: Value,
  inputs: readonly Value[],
  delta: Value | null,
): Value {
  const { graph, variant, model } = context
  const [first = x] = inputs
  const isPlain = !variant.hasVectors && inputs.every((input) => input === first)
  if (isPlain && !group.isApart && groupBias(model, group) === null) return product(context, group, first, delta)
  const z = variant.hasVectors ? vectorLinear(context, group, x, inputs) : partProducts(context, group, x, inputs, true)
  return delta === null ? z : graph.node('Add', [z, delta])
}

/** x W^T (+ bias) of the base model. */
export function baseLinear(context: GraphContext, group: LinearGroup, x: Value, withBias: boolean): Value {
  const { graph, model } = context
  const outputs = matricesOf(group).map((matrix) => {
    const bias = withBias ? groupBias(model, matrix) : null
    return product(context, matrix, x, bias && graph.floats(`${matrix.name}.bias`, [matrix.numOut], bias))
  })
  return outputs.length === 1 ? at(outputs, 0) : graph.node('Concat', outputs, { axis: 1 })
}

/** x W^T + addend [numOut] or [numTokens, numOut]: the product starts from it, which costs less than adding it afterwards. */
function product({ graph, store }: GraphContext, matrix: LinearGroup, x: Value, addend: Value | null): Value {
  const external = store.weights.get(matrix.name)
  const weight = graph.weight(matrix.name, 'float32', [matrix.numOut, matrix.numIn], external ?? new Map())
  return graph.node('Gemm', addend === null ? [x, weight] : [x, weight, addend], { transB: 1 })
}

/**
 * Base product where parts read inputs of their own. The packed weights multiply all parts at once, so the rows that differ go through
 * once more a part, behind all others, and each part keeps its own columns of its own rows.
 */
function partProducts(context: GraphContext, group: LinearGroup, x: Value, inputs: readonly Value[], withBias: boolean): Value {
  const { graph } = context
  const [first = x] = inputs
  if (inputs.every((input) => input === first)) return baseLinear(context, group, first, withBias)
  const changed = graph.input(`${group.name}.changedRows`, 'int32', [`${group.name}.numChanged`])
  const own = inputs.filter((input) => input !== x)
  const again = own.map((input) => graph.node('Gather', [input, changed], { axis: 0 }))
  const z = baseLinear(context, group, graph.node('Concat', [x, ...again], { axis: 0 }), withBias)
  const columns = splitParts(context, group, z)
  const outputs = inputs.map((input, part) => {
    // Row i of the n-th changed input lies behind the tokens and n blocks of changed rows.
    const rows = graph.input(`${group.name}.rowsOfInput.${input === x ? 0 : own.indexOf(input) + 1}`, 'int32', ['numTokens'])
    return graph.node('Gather', [at(columns, part), rows], { axis: 0 })
  })
  return graph.node('Concat', outputs, { axis: 1 })
}

function vectorLinear(context: GraphContext, group: LinearGroup, x: Value, inputs: readonly Value[]): Value {
  const { graph, variant } = context
  const entries = entriesOf(context)
  const scaled = (part: number) => {
    const { site } = at(group.parts, part)
    return graph.node('Mul', [at(inputs, part), gatherEntries(context, `${site}.inputScale`, group.numIn, entries)])
  }
  let z: Value
  if (group.parts.length === 1) z = baseLinear(context, group, scaled(0), false)
  else if (variant.hasSplitInputs) {
    // The packed weights multiply all parts at once; each part keeps its own columns of its own product.
    const products = group.parts.map((_, part) => {
      return at(splitParts(context, group, baseLinear(context, group, scaled(part), false)), part)
    })
    z = graph.node('Concat', products, { axis: 1 })
  } else z = partProducts(context, group, x, inputs, false)
  z = graph.node('Mul', [z, gatherEntries(context, `${group.name}.factor`, group.numOut, entries)])
  return graph.node('Add', [z, gatherEntries(context, `${group.name}.shift`, group.numOut, entries)])
}

/** (x A^T) B of each token's adapter, null where no token has one. [numTokens, numOut] */
function lowRankDelta(context: GraphContext, group: LinearGroup, inputs: readonly Value[]): Value | null {
  const deltas = lowRankParts(context, group, inputs)
  if (deltas.length === 0) return null
  const delta = deltas.length === 1 ? at(deltas, 0) : context.graph.node('Concat', deltas, { axis: 2 })
  return tokenRows(context, delta, group.numOut)
}

/** (x A^T) B of each part's tiles, [numTiles, tileRows, numOut]; none where no token has low-rank updates. */
function lowRankParts(context: GraphContext, group: LinearGroup, inputs: readonly Value[]): readonly Value[] {
  const { graph, variant } = context
  if (variant.lowRank === 'none') return []
  const kind = groupKind(group)
  const isAligned = variant.lowRank === 'aligned'
  const numParts = group.parts.length
  const a = tileWeights(context, `${group.name}.a`, `${kind}.a`, group.numIn)
  const ranks = () => graph.input(`tile.ranks.${kind}`, 'int64', [numParts])
  const shrunk = (x: Value): Value[] => {
    const rows = isAligned
      ? graph.node('Reshape', [x, graph.ints([-1, 1, group.numIn])])
      : graph.node('Gather', [x, graph.input('tile.rows', 'int32', ['numTiles', 'tileRows'])], { axis: 0 })
    const all = graph.node('FusedMatMul', [rows, a], { transB: 1 })
    return numParts === 1 ? [all] : graph.nodes('Split', [all, ranks()], numParts, { axis: 2 })
  }
  const ofInput = new Map([...new Set(inputs)].map((x) => [x, shrunk(x)]))
  const inner = inputs.map((x, part) => at(ofInput.get(x) ?? [], part))
  return group.parts.map(({ site, numOut }, part) => {
    const b = tileWeights(context, `${site}.b`, `${partKind(site)}.b`, numOut)
    return graph.node('MatMul', [at(inner, part), b])
  })
}

/** Rows of tiles to rows of tokens: [numTiles, tileRows, width] -> [numTokens, width], zero for tokens of no tile. */
function tokenRows({ graph, variant }: GraphContext, tiles: Value, width: number): Value {
  const flat = graph.node('Reshape', [tiles, graph.ints([-1, width])])
  if (variant.lowRank === 'aligned') return flat
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
