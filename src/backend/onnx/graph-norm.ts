import type { NormRole } from '../../model/decoder-spec.ts'
import type { Value } from './graph-builder.ts'
import { type GraphContext, gatherEntries } from './graph-context.ts'

/** Residual stream and its normalised form. */
export interface Normalized {
  readonly hidden: Value
  readonly normed: Value
}

/** h = hidden + delta (delta null: hidden alone), n = norm(h); a norm the model lacks is the identity. Shapes [numRows, hidden]. */
export function addAndNormalize(
  context: GraphContext,
  hidden: Value,
  delta: Value | null,
  layer: number,
  role: NormRole,
): Normalized {
  const { graph, spec, variant } = context
  const site = `layers.${layer}.${role}`
  if (delta !== null && spec.norms.has(role) && spec.norm.kind === 'rms' && !variant.hasVectors) {
    const inputs = [hidden, delta, gamma(context, site)]
    const attributes = { epsilon: { float: spec.norm.eps } }
    const isKept = (output: number) => output === 0 || output === 3
    const outputs = graph.nodes('SkipSimplifiedLayerNormalization', inputs, 4, attributes, isKept)
    return { normed: outputs[0] as Value, hidden: outputs[3] as Value }
  }
  const sum = delta === null ? hidden : graph.node('Add', [hidden, delta])
  return { hidden: sum, normed: normalizeRole(context, sum, layer, role) }
}

export function normalizeRole(context: GraphContext, x: Value, layer: number, role: NormRole): Value {
  return context.spec.norms.has(role) ? normalize(context, x, `layers.${layer}.${role}`, entriesOf(context)) : x
}

/** `site`'s norm of x [numRows, n], or [numRows, numHeads, n] where it is per head. `entries` [numRows]. */
export function normalize(context: GraphContext, x: Value, site: string, entries: Value, isPerHead = false): Value {
  const { graph, spec, model, variant } = context
  const attributes = { axis: -1, epsilon: { float: spec.norm.eps } }
  const scale = variant.hasVectors ? ones(context, site) : gamma(context, site)
  let y: Value
  if (spec.norm.kind === 'rms') y = graph.node('SimplifiedLayerNormalization', [x, scale], attributes)
  else {
    const bias = `${site}.bias`
    const hasBias = model.parameters.has(bias) && !variant.hasVectors
    const inputs = hasBias ? [x, scale, graph.floats(bias, [widthOf(context, site)], model.read(bias))] : [x, scale]
    y = graph.node('LayerNormalization', inputs, attributes)
  }
  if (!variant.hasVectors) return y
  for (const [op, table] of [
    ['Mul', `${site}.factor`],
    ['Add', `${site}.shift`],
  ] as const) {
    const rows = gatherEntries(context, table, widthOf(context, site), entries)
    y = graph.node(op, [y, isPerHead ? graph.node('Reshape', [rows, graph.ints([0, 1, -1])]) : rows])
  }
  return y
}

/** Adapter entry of each token. [numTokens] */
export function entriesOf({ graph, variant }: GraphContext): Value {
  return variant.hasVectors ? graph.input('entries', 'int32', ['numTokens']) : ''
}

function gamma({ graph, model, spec }: GraphContext, site: string): Value {
  const weight = model.read(site)
  const { weightOffset } = spec.norm
  return graph.floats(site, [weight.length], weightOffset === 0 ? weight : weight.map((value) => value + weightOffset))
}

function ones(context: GraphContext, site: string): Value {
  const width = widthOf(context, site)
  return context.graph.floats(`ones.${width}`, [width], new Float32Array(width).fill(1))
}

function widthOf({ model }: GraphContext, site: string): number {
  return model.read(site).length
}
