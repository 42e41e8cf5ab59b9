import type { SideAttention } from '../../../adapter/primitive.ts'
import type { DecoderSpec } from '../../../model/decoder-spec.ts'
import type { Value } from '../graph-builder.ts'
import type { GraphContext } from '../graph-context.ts'
import { type BoundForm, type ExtraForm, type ExtraOp, tableOf } from './extra.ts'
import { table } from './op-graph.ts'

/** Keys and values head by head, as the products read them: [numKvHeads, numTokens, headDim]; the gate is in the values. */
export function bindSideAttention(side: SideAttention, { numKvHeads, headDim }: DecoderSpec): BoundForm {
  const { numTokens, gate } = side
  const byHead = (rows: Float32Array, scale: number): Float32Array => {
    const out = new Float32Array(rows.length)
    for (let head = 0; head < numKvHeads; head++) {
      for (let token = 0; token < numTokens; token++) {
        const source = (token * numKvHeads + head) * headDim
        const target = (head * numTokens + token) * headDim
        for (let i = 0; i < headDim; i++) out[target + i] = scale * (rows[source + i] as number)
      }
    }
    return out
  }
  const dims = [numKvHeads, numTokens, headDim]
  const tables = new Map([
    ['keys', tableOf(byHead(side.keys, 1), dims)],
    ['values', tableOf(byHead(side.values, gate), dims)],
  ])
  return { form: { kind: 'side-attention', numTokens }, tables }
}

/** gate · softmax(q keysᵀ · scale) values. q and the answer [tiles, tileRows, numHeads * headDim] */
export function sideAttentionTiles(
  context: GraphContext,
  op: ExtraOp,
  _form: ExtraForm & { kind: 'side-attention' },
  q: Value,
): Value {
  const { graph, spec } = context
  const { numHeads, numKvHeads, headDim } = spec
  const group = numHeads / numKvHeads
  const byHead = graph.node('Reshape', [q, graph.ints([0, 0, numKvHeads, group * headDim])])
  const rows = graph.node('Transpose', [byHead], { perm: [0, 2, 1, 3] })
  const queries = graph.node('Reshape', [rows, graph.ints([0, 0, -1, headDim])])
  const attributes = { transB: 1, alpha: { float: spec.attentionScale } }
  const scores = graph.node('FusedMatMul', [queries, table(context, op, 'keys')], attributes)
  const mixed = graph.node('MatMul', [graph.node('Softmax', [scores], { axis: -1 }), table(context, op, 'values')])
  const grouped = graph.node('Reshape', [mixed, graph.ints([0, 0, -1, group * headDim])])
  return graph.node('Reshape', [
    graph.node('Transpose', [grouped], { perm: [0, 2, 1, 3] }),
    graph.ints([0, 0, numHeads * headDim]),
  ])
}
