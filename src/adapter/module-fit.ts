// Whether a small network fits the place where it is attached.

import { lengthMisfit } from './linear-fit.ts'
import type {
  Bottleneck,
  Coupling,
  Gate,
  GatedLowRank,
  HalfMlp,
  LayerNormWeights,
  PooledGate,
  PositionRows,
  Routed,
  StreamEdit,
} from './primitive.ts'
import type { SiteShape } from './site-shapes.ts'

const HOOK_INPUTS: readonly string[] = ['sum', 'sublayer', 'residual', 'normed']

/** Why the primitive does not fit the site, or null. */
export function moduleMisfit(shape: SiteShape, primitive: Bottleneck | GatedLowRank | Routed | StreamEdit): string | null {
  switch (primitive.kind) {
    case 'bottleneck':
      return bottleneckMisfit(shape, primitive)
    case 'gated-low-rank':
      return (
        lengthMisfit('A', primitive.a, primitive.rank * shape.numIn) ??
        lengthMisfit('B', primitive.b, primitive.rank * shape.numOut) ??
        gateMisfit(primitive.gate, shape.numIn)
      )
    case 'routed':
      return routedMisfit(shape, primitive)
    case 'stream-edit': {
      const { rank, source, sourceBias, rotation } = primitive
      return (
        lengthMisfit('source', source, rank * shape.numIn) ??
        lengthMisfit('the source bias', sourceBias, rank) ??
        lengthMisfit('rotation', rotation, rank * shape.numIn)
      )
    }
  }
}

export function positionMisfit({ numIn }: SiteShape, primitive: Coupling | PositionRows): string | null {
  if (primitive.kind === 'position-rows') return primitive.rows.length % numIn === 0 ? null : `rows must have ${numIn} values`
  if (numIn % 2 !== 0) return `${numIn} has no halves`
  return halfMisfit('f', primitive.f, numIn / 2) ?? halfMisfit('g', primitive.g, numIn / 2)
}

function halfMisfit(what: string, { size, down, downBias, up, upBias }: HalfMlp, half: number): string | null {
  return (
    lengthMisfit(`${what}.down`, down, size * half) ??
    lengthMisfit(`${what}.downBias`, downBias, size) ??
    lengthMisfit(`${what}.up`, up, size * half) ??
    lengthMisfit(`${what}.upBias`, upBias, half)
  )
}

/** Rows that enter and leave a bottleneck, by its input. */
function widthsOf(shape: SiteShape, input: Bottleneck['input']): readonly [numIn: number, numOut: number] | null {
  const { kind, numIn, numOut } = shape
  if (kind === 'hook') return HOOK_INPUTS.includes(input) ? [numIn, numOut] : null
  if (kind === 'embedding') return input === 'site-output' ? [numIn, numIn] : null
  if (input === 'site-input') return [numIn, numIn]
  if (input === 'site-beside') return [numIn, numOut]
  return input === 'site-output' ? [numOut, numOut] : null
}

function bottleneckMisfit(shape: SiteShape, adapter: Bottleneck): string | null {
  const { input, size, down, downBias, up, upBias, scale, normBefore, normAfter, normsSublayerSum, gate } = adapter
  const widths = widthsOf(shape, input)
  if (widths === null) return `no input ${input} here`
  if (normsSublayerSum && (normAfter === null || shape.kind !== 'hook')) return 'a norm of the sum needs a norm and a sublayer'
  if (gate !== null && shape.kind === 'embedding') return 'no gate over the rows of a call here'
  const [numIn, numOut] = widths
  return (
    lengthMisfit('down', down, size * numIn) ??
    (downBias === null ? null : lengthMisfit('the bias of down', downBias, size)) ??
    lengthMisfit('up', up, size * numOut) ??
    (upBias === null ? null : lengthMisfit('the bias of up', upBias, numOut)) ??
    (typeof scale === 'number' ? null : lengthMisfit('scale', scale, numOut)) ??
    normMisfit(normBefore, numIn) ??
    normMisfit(normAfter, numOut) ??
    (gate === null ? null : gateMisfit(gate, numIn))
  )
}

function normMisfit(norm: LayerNormWeights | null, width: number): string | null {
  if (norm === null) return null
  return lengthMisfit('the norm weight', norm.weight, width) ?? lengthMisfit('the norm bias', norm.bias, width)
}

function gateMisfit({ weight }: PooledGate, width: number): string | null {
  return lengthMisfit('the gate', weight, width)
}

function routedMisfit(shape: SiteShape, { experts, gate, sublayerWeight }: Routed): string | null {
  const isHook = shape.kind === 'hook'
  if (experts.length === 0) return 'a mixture needs experts'
  if (!isHook && sublayerWeight !== 1) return 'a linear keeps its own output'
  for (const expert of experts) {
    const isRight = expert.kind === experts[0]?.kind && (expert.kind === 'bottleneck') === isHook
    if (!isRight) return 'experts must be of one kind: bottlenecks at a hook, low rank or vectors at a linear'
    const reason = expertMisfit(shape, expert, experts)
    if (reason !== null) return reason
  }
  return mixMisfit(gate, experts.length, shape)
}

function expertMisfit(shape: SiteShape, expert: Routed['experts'][number], experts: Routed['experts']): string | null {
  if (expert.kind === 'vector') {
    if (expert.slot !== 'output-scale') return 'vectors are mixed in the slot output-scale'
    return lengthMisfit('an expert', expert.values, shape.numOut)
  }
  if (expert.kind === 'low-rank') {
    return (
      lengthMisfit('A', expert.a, expert.rank * shape.numIn) ??
      lengthMisfit('B', expert.b, expert.rank * shape.numOut) ??
      (expert.biasB === null ? null : lengthMisfit('the bias of B', expert.biasB, shape.numOut))
    )
  }
  const first = experts[0]
  if (first?.kind === 'bottleneck' && first.input !== expert.input) return 'experts of one mixture have one input'
  if (expert.normsSublayerSum) return 'a norm of the sum is no expert'
  return bottleneckMisfit(shape, expert)
}

function mixMisfit(gate: Gate, numExperts: number, { kind, numIn }: SiteShape): string | null {
  switch (gate.kind) {
    case 'constant':
      return lengthMisfit('the weights', gate.weights, numExperts)
    case 'linear':
      return (
        lengthMisfit('the router', gate.weight, numExperts * numIn) ??
        (gate.bias === null ? null : lengthMisfit('the bias of the router', gate.bias, numExperts))
      )
    case 'prototype':
      return lengthMisfit('prototypes', gate.prototypes, numExperts * numIn)
    case 'attention':
      if (kind !== 'hook') return 'fusion mixes bottlenecks at a hook'
      return (
        lengthMisfit('query', gate.query, numIn * numIn) ??
        lengthMisfit('the bias of query', gate.queryBias, numIn) ??
        lengthMisfit('key', gate.key, numIn * numIn) ??
        lengthMisfit('the bias of key', gate.keyBias, numIn) ??
        lengthMisfit('value', gate.value, numIn * numIn)
      )
  }
}
