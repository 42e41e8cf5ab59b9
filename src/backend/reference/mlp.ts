import { activate } from '../../adapter/arithmetic/activate.ts'
import { softmax } from '../../adapter/arithmetic/dot.ts'
import { invariant } from '../../core/invariant.ts'
import type { LinearRole, MlpSpec } from '../../model/decoder-spec.ts'
import { multiply } from './linear.ts'
import type { ModelWeights } from './site-weights.ts'

/** A linear of this layer over the rows of one call, adapter included. */
export type ApplyRole = (role: LinearRole, xs: readonly Float32Array[]) => readonly Float32Array[]

/** The MLP of the rows of one call. `xs` [hidden] -> [hidden]. */
export function applyMlp(
  spec: MlpSpec,
  weights: ModelWeights,
  layer: number,
  xs: readonly Float32Array[],
  apply: ApplyRole,
): readonly Float32Array[] {
  if (spec.kind === 'experts') return xs.map((x) => applyExperts(spec, weights, layer, x))
  const up = apply('up', xs)
  if (spec.kind === 'plain') {
    return apply(
      'down',
      up.map((row) => row.map((value) => activate(spec.activation, value))),
    )
  }
  const gate = apply('gate', xs)
  return apply(
    'down',
    up.map((row, i) => gated(spec, gate[i] as Float32Array, row)),
  )
}

/** GLU variants: arXiv:2002.05202. */
function gated(spec: MlpSpec, gate: Float32Array, up: Float32Array): Float32Array {
  return gate.map((value, i) => activate(spec.activation, value) * (up[i] as number))
}

/** Sparse mixture (arXiv:2401.04088): softmax over all experts, the largest few kept. */
function applyExperts(
  spec: MlpSpec & { kind: 'experts' },
  weights: ModelWeights,
  layer: number,
  x: Float32Array,
): Float32Array {
  const scores = product(weights, `layers.${layer}.router`, x)
  const out = new Float32Array(x.length)
  for (const { expert, weight } of chooseExperts(spec, softmax([...scores]))) {
    const path = `layers.${layer}.experts.${expert}`
    const inner = gated(spec, product(weights, `${path}.gate`, x), product(weights, `${path}.up`, x))
    const y = product(weights, `${path}.down`, inner)
    for (let i = 0; i < out.length; i++) out[i] = (out[i] as number) + weight * (y[i] as number)
  }
  return out
}

interface ChosenExpert {
  readonly expert: number
  readonly weight: number
}

/** The first expert wins among equals. */
function chooseExperts(spec: MlpSpec & { kind: 'experts' }, probabilities: readonly number[]): readonly ChosenExpert[] {
  const chosen = probabilities
    .map((weight, expert) => ({ expert, weight }))
    .sort((a, b) => b.weight - a.weight || a.expert - b.expert)
    .slice(0, spec.numExpertsPerToken)
  const sum = spec.renormalize ? chosen.reduce((total, { weight }) => total + weight, 0) : 1
  return chosen.map(({ expert, weight }) => ({ expert, weight: weight / sum }))
}

function product(weights: ModelWeights, site: string, x: Float32Array): Float32Array {
  const { weight, numOut, bias } = weights.get(site)
  invariant(bias === null, 'experts and routers have no bias')
  return multiply(weight, x, numOut)
}
