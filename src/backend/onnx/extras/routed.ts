// Mixtures: weights of the experts of each row, and the experts' outputs by them.

import type { Bottleneck, Gate, LowRank, Routed, Vector } from '../../../adapter/primitive.ts'
import { at, invariant } from '../../../core/invariant.ts'
import type { Value } from '../graph-builder.ts'
import type { GraphContext } from '../graph-context.ts'
import { bindBottleneck, bottleneckTiles, type Widths } from './bottleneck.ts'
import { type BoundForm, type ExtraForm, type ExtraOp, type MixForm, type Table, tableOf } from './extra.ts'
import { table } from './op-graph.ts'

export function bindRouted(routed: Routed, widths: Widths): BoundForm {
  const { experts, gate, sublayerWeight } = routed
  const mix = mixForm(gate, experts.length)
  const tables = new Map(mixTables(gate, experts.length, widths.inWidth))
  const [first] = experts
  if (first?.kind === 'low-rank') {
    setLowRanks(tables, experts as readonly LowRank[], widths)
    return { form: { kind: 'routed-low-rank', mix }, tables }
  }
  if (first?.kind === 'vector') {
    const values = (experts as readonly Vector[]).flatMap((expert) => [...expert.values])
    tables.set('values', tableOf(Float32Array.from(values), [experts.length, widths.outWidth]))
    return { form: { kind: 'routed-vectors', mix }, tables }
  }
  const bound = (experts as readonly Bottleneck[]).map((expert, i) => bindBottleneck(expert, widths, `${i}.`))
  for (const each of bound) for (const [name, own] of each.tables) tables.set(name, own)
  tables.set('sublayerWeight', tableOf(Float32Array.of(sublayerWeight), [1, 1]))
  return { form: { kind: 'routed-bottlenecks', mix, experts: bound.map(({ form }) => form) }, tables }
}

/** Experts side by side, ranks padded to the largest: A and B transposed [numExperts, rank, width], scales in B. */
function setLowRanks(tables: Map<string, Table>, experts: readonly LowRank[], { inWidth, outWidth }: Widths): void {
  const most = experts.reduce((rank, expert) => Math.max(rank, expert.rank), 1)
  const a = new Float32Array(experts.length * most * inWidth)
  const b = new Float32Array(experts.length * most * outWidth)
  const bias = new Float32Array(experts.length * outWidth)
  for (const [i, expert] of experts.entries()) {
    const { rank, scale, biasB } = expert
    a.set(expert.a, i * most * inWidth)
    for (let r = 0; r < rank; r++) {
      const start = (i * most + r) * outWidth
      for (let out = 0; out < outWidth; out++) b[start + out] = scale * (expert.b[out * rank + r] as number)
    }
    biasB?.forEach((value, out) => {
      bias[i * outWidth + out] = scale * value
    })
  }
  tables.set('a', tableOf(a, [experts.length, most, inWidth], [1]))
  tables.set('b', tableOf(b, [experts.length, most, outWidth], [1]))
  tables.set('biases', tableOf(bias, [experts.length, outWidth]))
}

function mixForm(gate: Gate, numExperts: number): MixForm {
  if (gate.kind === 'attention') return { kind: 'attention', numExperts }
  const topK = gate.kind === 'constant' || gate.topK === null ? null : Math.min(gate.topK, numExperts)
  return { kind: gate.kind, numExperts, topK, renormalize: gate.kind === 'linear' && gate.renormalize }
}

function mixTables(gate: Gate, numExperts: number, width: number): [string, Table][] {
  switch (gate.kind) {
    case 'constant':
      return [['weights', tableOf(gate.weights, [1, numExperts])]]
    case 'prototype': {
      const temperature = Float32Array.of(gate.temperature)
      return [
        ['router', tableOf(gate.prototypes, [numExperts, width])],
        ['temperature', tableOf(temperature, [1, 1])],
      ]
    }
    case 'linear': {
      const { weight, temperature } = gate
      const bias = gate.bias ?? new Float32Array(numExperts)
      return [
        ['router', tableOf(weight, [numExperts, width])],
        ['routerBias', tableOf(bias, [1, numExperts])],
        ['temperature', tableOf(Float32Array.of(temperature), [1, 1])],
      ]
    }
    case 'attention':
      return [
        ['query', tableOf(gate.query, [width, width])],
        ['queryBias', tableOf(gate.queryBias, [1, width])],
        ['key', tableOf(gate.key, [width, width])],
        ['keyBias', tableOf(gate.keyBias, [1, width])],
        ['value', tableOf(gate.value, [width, width])],
      ]
  }
}

/** Σ p_e B_e A_e x. x [tiles, tileRows, in] -> [tiles, tileRows, out] */
export function routedLowRankTiles(
  context: GraphContext,
  op: ExtraOp,
  { mix }: ExtraForm & { kind: 'routed-low-rank' },
  x: Value,
): Value {
  const { graph } = context
  const weights = expertWeights(context, op, mix, x)
  const allRanks = (name: string, width: number) =>
    graph.node('Reshape', [table(context, op, name), graph.ints([0, -1, width])])
  const inner = graph.node('FusedMatMul', [x, allRanks('a', op.inWidth)], { transB: 1 })
  const byExpert = graph.node('Reshape', [inner, graph.ints([0, 0, mix.numExperts, -1])])
  const weighted = graph.node('Mul', [byExpert, graph.node('Unsqueeze', [weights, graph.ints([3])])])
  const flat = graph.node('Reshape', [weighted, graph.ints([0, 0, -1])])
  const biases = graph.node('MatMul', [weights, table(context, op, 'biases')])
  return graph.node('Add', [graph.node('MatMul', [flat, allRanks('b', op.outWidth)]), biases])
}

/** Σ p_e l_e. x [tiles, tileRows, in] -> [tiles, tileRows, out] */
export function routedVectorTiles(
  context: GraphContext,
  op: ExtraOp,
  { mix }: ExtraForm & { kind: 'routed-vectors' },
  x: Value,
): Value {
  const weights = expertWeights(context, op, mix, x)
  const mixed = context.graph.node('MatMul', [weights, table(context, op, 'values')])
  // Constant weights have one row for all rows of a tile.
  return context.graph.node('Expand', [mixed, context.graph.input(`${op.key}.rowsShape`, 'int64', [3])])
}

/** sublayerWeight · f + Σ p_e A_e. `s` is the experts' input. [tiles, tileRows, hidden] */
export function routedBottleneckTiles(
  context: GraphContext,
  op: ExtraOp,
  { mix, experts }: ExtraForm & { kind: 'routed-bottlenecks' },
  { s, f }: { s: Value; f: Value },
): Value {
  const { graph } = context
  const outputs = experts.map((form, i) => bottleneckTiles(context, op, form, { x: s, f: null, prefix: `${i}.` }))
  const kept = graph.node('Mul', [f, table(context, op, 'sublayerWeight')])
  if (mix.kind === 'attention') return graph.node('Sum', [kept, ...fused(context, op, s, outputs)])
  const weights = expertWeights(context, op, mix, s)
  return graph.node('Sum', [kept, ...weightedBy(context, weights, outputs)])
}

function weightedBy({ graph }: GraphContext, weights: Value, outputs: readonly Value[]): Value[] {
  const each = graph.nodes('Split', [weights, graph.ints(outputs.map(() => 1))], outputs.length, { axis: 2 })
  return outputs.map((output, i) => graph.node('Mul', [output, at(each, i)]))
}

/** AdapterFusion (arXiv:2005.00247). */
function fused(context: GraphContext, op: ExtraOp, s: Value, outputs: readonly Value[]): Value[] {
  const { graph } = context
  const projected = (value: Value, name: string) => graph.node('FusedMatMul', [value, table(context, op, name)], { transB: 1 })
  const biased = (value: Value, name: string) => graph.node('Add', [projected(value, name), table(context, op, `${name}Bias`)])
  const query = biased(s, 'query')
  const scores = outputs.map((output) => {
    const product = graph.node('Mul', [query, biased(output, 'key')])
    return graph.node('ReduceSum', [product, graph.ints([2])], { keepdims: 1 })
  })
  const weights = graph.node('Softmax', [graph.node('Concat', scores, { axis: 2 })], { axis: -1 })
  return weightedBy(
    context,
    weights,
    outputs.map((output) => projected(output, 'value')),
  )
}

/** [tiles, tileRows, numExperts], or one row a tile where the weights are constant. */
function expertWeights(context: GraphContext, op: ExtraOp, mix: MixForm, x: Value): Value {
  const { graph } = context
  invariant(mix.kind !== 'attention', 'attention weighs outputs')
  if (mix.kind === 'constant') return table(context, op, 'weights')
  const products = graph.node('FusedMatMul', [x, table(context, op, 'router')], { transB: 1 })
  const tempered = (value: Value) => graph.node('Div', [value, table(context, op, 'temperature')])
  const top = (scores: Value): readonly [Value, Value] => {
    const [values, chosen] = graph.nodes('TopK', [scores, graph.ints([mix.topK ?? mix.numExperts])], 2, { axis: -1 })
    return [values as Value, chosen as Value]
  }
  const spread = (scores: Value, chosen: Value, kept: Value) =>
    graph.node('ScatterElements', [graph.node('Mul', [scores, graph.scalar(0)]), chosen, kept], { axis: 2 })
  if (mix.kind === 'prototype') {
    const scores = graph.node('Abs', [products])
    const [values, chosen] = top(scores)
    return spread(scores, chosen, graph.node('Softmax', [tempered(values)], { axis: -1 }))
  }
  const biased = graph.node('Add', [products, table(context, op, 'routerBias')])
  const all = graph.node('Softmax', [tempered(biased)], { axis: -1 })
  if (mix.topK === null) return all
  const [values, chosen] = top(all)
  const sum = () => graph.node('ReduceSum', [values, graph.ints([2])], { keepdims: 1 })
  return spread(all, chosen, mix.renormalize ? graph.node('Div', [values, sum()]) : values)
}
