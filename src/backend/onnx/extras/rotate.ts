import type { PairRotate, Rotate } from '../../../adapter/primitive.ts'
import type { Value } from '../graph-builder.ts'
import type { GraphContext } from '../graph-context.ts'
import { type BoundForm, type ExtraForm, type ExtraOp, type Table, tableOf } from './extra.ts'
import { table } from './op-graph.ts'

export function bindRotate({ blockSize, blocks }: Rotate): BoundForm {
  const isShared = blocks.length === blockSize * blockSize
  const dims = [isShared ? 1 : blocks.length / (blockSize * blockSize), blockSize, blockSize]
  return { form: { kind: 'rotate', blockSize, isShared }, tables: new Map([['blocks', tableOf(blocks, dims)]]) }
}

/** x · blockdiag(R). x and the answer [tiles, tileRows, in] */
export function rotateTiles(context: GraphContext, op: ExtraOp, form: ExtraForm & { kind: 'rotate' }, x: Value): Value {
  const { graph } = context
  const blocks = table(context, op, 'blocks')
  if (form.isShared) {
    const rows = graph.node('Reshape', [x, graph.ints([0, 1, -1, form.blockSize])])
    return graph.node('Reshape', [graph.node('MatMul', [rows, blocks]), graph.ints([0, -1, op.inWidth])])
  }
  const byBlock = { perm: [0, 2, 1, 3] }
  const cut = graph.node('Reshape', [x, graph.ints([0, 0, -1, form.blockSize])])
  const turned = graph.node('MatMul', [graph.node('Transpose', [cut], byBlock), blocks])
  return graph.node('Reshape', [graph.node('Transpose', [turned], byBlock), graph.ints([0, 0, op.inWidth])])
}

/** What of a site's output comes after its updates: scale, rotation of pairs, shift. Null where it is nothing. */
export function bindLate(
  width: number,
  { scale, turn, shift }: { scale: Float32Array | null; turn: PairRotate | null; shift: Float32Array | null },
): BoundForm | null {
  if (scale === null && turn === null && shift === null) return null
  const tables = new Map<string, Table>()
  if (scale !== null) tables.set('scale', tableOf(scale, [1, width]))
  if (turn !== null) {
    const { half, cos, sin } = turn
    tables.set('cos', tableOf(cos, [1, width]))
    const signed = sin.map((value, j) => (j % (2 * half) < half ? -value : value))
    tables.set('sin', tableOf(signed, [1, width]))
  }
  if (shift !== null) tables.set('shift', tableOf(shift, [1, width]))
  return { form: { kind: 'late', hasScale: scale !== null, half: turn?.half ?? 0, hasShift: shift !== null }, tables }
}

/** z [tiles, tileRows, out] */
export function lateTiles(
  context: GraphContext,
  op: ExtraOp,
  { hasScale, half, hasShift }: ExtraForm & { kind: 'late' },
  z: Value,
): Value {
  const { graph } = context
  let out = hasScale ? graph.node('Mul', [z, table(context, op, 'scale')]) : z
  if (half > 0) {
    const pairs = graph.node('Reshape', [out, graph.ints([0, 0, -1, 2, half])])
    const swapped = graph.node('Gather', [pairs, graph.ints([1, 0])], { axis: 3 })
    const other = graph.node('Reshape', [swapped, graph.ints([0, 0, op.outWidth])])
    const kept = graph.node('Mul', [out, table(context, op, 'cos')])
    out = graph.node('Add', [kept, graph.node('Mul', [other, table(context, op, 'sin')])])
  }
  return hasShift ? graph.node('Add', [out, table(context, op, 'shift')]) : out
}
