import type { LinearGroup } from './decoder-layout.ts'
import type { Value } from './graph-builder.ts'
import type { GraphContext } from './graph-context.ts'

/** z [numTokens, numOut] cut into the columns of each part. */
export function splitParts({ graph }: GraphContext, group: LinearGroup, z: Value): Value[] {
  const sizes = graph.ints(group.parts.map(({ numOut }) => numOut))
  return graph.nodes('Split', [z, sizes], group.parts.length, { axis: 1 })
}
