import type { StreamEdit } from '../../../adapter/primitive.ts'
import { activation } from '../graph-activation.ts'
import type { Value } from '../graph-builder.ts'
import type { GraphContext } from '../graph-context.ts'
import { type BoundForm, type ExtraForm, type ExtraOp, tableOf } from './extra.ts'
import { table } from './op-graph.ts'

export function bindStreamEdit(edit: StreamEdit, width: number): BoundForm {
  const { rank, source, sourceBias, rotation, activation: act, subtractsProjection } = edit
  const tables = new Map([
    ['source', tableOf(source, [rank, width], [0])],
    ['sourceBias', tableOf(sourceBias, [1, rank], [1])],
    ['rotation', tableOf(rotation, [rank, width], [0])],
  ])
  return { form: { kind: 'stream-edit', activation: act, subtractsProjection }, tables }
}

/** rotationᵀ(act(source h + bias) - rotation h). h and the answer [tiles, tileRows, hidden] */
export function streamEditTiles(
  context: GraphContext,
  op: ExtraOp,
  form: ExtraForm & { kind: 'stream-edit' },
  h: Value,
): Value {
  const { graph } = context
  const rotation = table(context, op, 'rotation')
  const scores = graph.node('FusedMatMul', [h, table(context, op, 'source')], { transB: 1 })
  let step = activation(context, form.activation, graph.node('Add', [scores, table(context, op, 'sourceBias')]))
  if (form.subtractsProjection) step = graph.node('Sub', [step, graph.node('FusedMatMul', [h, rotation], { transB: 1 })])
  return graph.node('MatMul', [step, rotation])
}
