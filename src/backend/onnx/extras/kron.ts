import type { Kron } from '../../../adapter/primitive.ts'
import type { Value } from '../graph-builder.ts'
import type { GraphContext } from '../graph-context.ts'
import { type BoundForm, type ExtraForm, type ExtraOp, tableOf } from './extra.ts'
import { table } from './op-graph.ts'

export function bindKron({ leftShape, rightShape, left, right, scale }: Kron): BoundForm {
  const scaled = scale === 1 ? left : left.map((value) => scale * value)
  const tables = new Map([
    ['left', tableOf(scaled, leftShape)],
    ['right', tableOf(right, rightShape)],
  ])
  return { form: { kind: 'kron', leftShape, rightShape }, tables }
}

/** vec(left X rightᵀ), the cheaper factor first. x [tiles, tileRows, in] -> [tiles, tileRows, out] */
export function kronTiles(context: GraphContext, op: ExtraOp, form: ExtraForm & { kind: 'kron' }, x: Value): Value {
  const { graph } = context
  const [a, b] = form.leftShape
  const [c, e] = form.rightShape
  const right = table(context, op, 'right')
  // One left factor for all rows of a tile.
  const left = graph.node('Reshape', [table(context, op, 'left'), graph.ints([0, 1, a, b])])
  const timesRight = (value: Value) =>
    graph.node('FusedMatMul', [graph.node('Reshape', [value, graph.ints([0, -1, e])]), right], { transB: 1 })
  const timesLeft = (value: Value, columns: number) =>
    graph.node('MatMul', [left, graph.node('Reshape', [value, graph.ints([0, -1, b, columns])])])
  const isRightFirst = b * e * c + a * b * c <= a * b * e + a * e * c
  const delta = isRightFirst ? timesLeft(timesRight(x), c) : timesRight(timesLeft(x, e))
  return graph.node('Reshape', [delta, graph.ints([0, -1, op.outWidth])])
}
