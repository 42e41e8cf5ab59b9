import { LEAKY_SLOPE } from '../../adapter/arithmetic/activate.ts'
import type { BottleneckActivation } from '../../adapter/primitive.ts'
import type { Value } from './graph-builder.ts'
import type { GraphContext } from './graph-context.ts'

export function activation({ graph }: GraphContext, kind: BottleneckActivation, x: Value): Value {
  switch (kind) {
    case 'silu':
      return graph.node('QuickGelu', [x], { alpha: { float: 1 } })
    case 'gelu':
      return graph.node('Gelu', [x], { approximate: 'none' })
    case 'gelu-tanh':
      return graph.node('Gelu', [x], { approximate: 'tanh' })
    case 'relu':
      return graph.node('Relu', [x])
    case 'leaky-relu':
      return graph.node('LeakyRelu', [x], { alpha: { float: LEAKY_SLOPE } })
    case 'tanh':
      return graph.node('Tanh', [x])
    case 'sigmoid':
      return graph.node('Sigmoid', [x])
    case 'identity':
      return x
  }
}
