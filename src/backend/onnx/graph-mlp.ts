import { at, invariant } from '../../core/invariant.ts'
import type { Activation, MlpSpec } from '../../model/decoder-spec.ts'
import { activation } from './graph-activation.ts'
import type { Value } from './graph-builder.ts'
import type { GraphContext } from './graph-context.ts'
import { baseLinear, baseParts, linear, linearParts } from './graph-linear.ts'

/** x [numTokens, hidden] -> [numTokens, hidden]. */
export function mlp(context: GraphContext, index: number, x: Value): Value {
  const { mlp: spec } = at(context.spec.layers, index)
  if (spec.kind === 'experts') return expertMlp(context, index, spec, x)
  const { mlpIn, down } = at(context.layout.layers, index)
  invariant(mlpIn !== null && down !== null, 'a dense layer has its linears')
  const activated =
    spec.kind === 'plain'
      ? activation(context, spec.activation, linear(context, mlpIn, x))
      : gated(context, spec.activation, linearParts(context, mlpIn, x))
  return linear(context, down, activated)
}

function gated(context: GraphContext, kind: Activation, gateUp: readonly Value[]): Value {
  return context.graph.node('Mul', [activation(context, kind, at(gateUp, 0)), at(gateUp, 1)])
}

/** Every expert over every token, weighted by its kept probability or zero. */
function expertMlp(context: GraphContext, index: number, spec: MlpSpec & { kind: 'experts' }, x: Value): Value {
  const { graph } = context
  const { router, experts } = at(context.layout.layers, index)
  invariant(router !== null, 'a layer of experts has a router')
  const scores = graph.node('Softmax', [baseLinear(context, router, x, false)], { axis: -1 })
  const [top, chosen] = graph.nodes('TopK', [scores, graph.ints([spec.numExpertsPerToken])], 2, { axis: -1 }) as [Value, Value]
  const kept = spec.renormalize
    ? graph.node('Div', [top, graph.node('ReduceSum', [top, graph.ints([1])], { keepdims: 1 })])
    : top
  const zeros = graph.node('Mul', [scores, graph.scalar(0)])
  const weights = graph.node('ScatterElements', [zeros, chosen, kept], { axis: 1 })
  const columns = graph.nodes('Split', [weights, graph.ints(experts.map(() => 1))], experts.length, { axis: 1 })
  const outputs = experts.map(({ gateUp, down }, expert) => {
    const y = baseLinear(context, down, gated(context, spec.activation, baseParts(context, gateUp, x)), false)
    return graph.node('Mul', [y, at(columns, expert)])
  })
  return graph.node('Sum', outputs)
}
