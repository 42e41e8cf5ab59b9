import type { GatedLowRank } from '../../../adapter/primitive.ts'
import type { Value } from '../graph-builder.ts'
import type { GraphContext } from '../graph-context.ts'
import { gateTables, gateTiles, type Widths } from './bottleneck.ts'
import { type BoundForm, type ExtraOp, tableOf } from './extra.ts'
import { table } from './op-graph.ts'

export function bindGatedLowRank({ rank, a, b, gate }: GatedLowRank, { inWidth, outWidth }: Widths): BoundForm {
  const tables = new Map([
    ['a', tableOf(a, [rank, inWidth], [0])],
    ['b', tableOf(b, [outWidth, rank], [1])],
    ...gateTables(gate),
  ])
  return { form: { kind: 'gated-low-rank' }, tables }
}

/** gate · B (A x). x [tiles, tileRows, in] -> [tiles, tileRows, out] */
export function gatedLowRankTiles(context: GraphContext, op: ExtraOp, x: Value): Value {
  const { graph } = context
  const inner = graph.node('FusedMatMul', [x, table(context, op, 'a')], { transB: 1 })
  const delta = graph.node('FusedMatMul', [inner, table(context, op, 'b')], { transB: 1 })
  return graph.node('Mul', [delta, gateTiles(context, op, x)])
}
