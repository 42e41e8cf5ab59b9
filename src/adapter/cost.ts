// What a primitive costs a token, counted from the sizes of its arrays: a multiply-add is two operations, and a weight read is an element.

import type { Primitive, VirtualTokens } from './primitive.ts'
import { arraysOf } from './primitive-arrays.ts'

export interface Cost {
  /** Floating point operations a token. */
  readonly flops: number
  /** Elements read for all rows of a step together. */
  readonly elements: number
}

const NOTHING: Cost = { flops: 0, elements: 0 }

/** A mixture computes the experts it chooses, and a step that has many rows reads all of them. */
export function costOf(primitive: Primitive): Cost {
  const elements = arraysOf(primitive).reduce((sum, { length }) => sum + length, 0)
  switch (primitive.kind) {
    case 'vector':
      return { flops: elements, elements }
    // In place of the base's own: nothing is computed beside it.
    case 'replace':
      return { flops: 0, elements }
    // Looked up by token.
    case 'rows':
    case 'position-rows':
      return NOTHING
    case 'kron': {
      const { leftShape, rightShape } = primitive
      const [a, b] = leftShape
      const [c, e] = rightShape
      return { flops: 2 * b * e * c + 2 * a * b * c, elements }
    }
    case 'circulant':
      return { flops: 2 * primitive.kernel.length * primitive.blockSize, elements }
    case 'sparse':
      return { flops: 2 * primitive.values.length, elements }
    case 'pair-rotate':
      return { flops: 3 * primitive.cos.length, elements }
    case 'routed':
      return routedCost(primitive)
    default:
      return { flops: 2 * elements, elements }
  }
}

/** A prefix is read by attention, as keys and values of any token are. */
export function virtualCost(virtualTokens: VirtualTokens | null): Cost {
  if (virtualTokens === null || virtualTokens.kind === 'soft-prompt') return NOTHING
  const elements = [...virtualTokens.keys, ...virtualTokens.values].reduce((sum, { length }) => sum + length, 0)
  return { flops: 2 * elements, elements }
}

function routedCost({ experts, gate }: Primitive & { kind: 'routed' }): Cost {
  const costs = experts.map(costOf)
  const numActive = 'topK' in gate ? (gate.topK ?? experts.length) : experts.length
  const gateElements = arraysOf(gate).reduce((sum, { length }) => sum + length, 0)
  const flops = costs.reduce((sum, cost) => sum + cost.flops, 0)
  return {
    flops: (flops * numActive) / experts.length + 2 * gateElements,
    elements: costs.reduce((sum, cost) => sum + cost.elements, 0) + gateElements,
  }
}
