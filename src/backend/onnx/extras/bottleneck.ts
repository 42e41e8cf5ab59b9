import type { Bottleneck, LayerNormWeights, PooledGate } from '../../../adapter/primitive.ts'
import { activation } from '../graph-activation.ts'
import type { Value } from '../graph-builder.ts'
import type { GraphContext } from '../graph-context.ts'
import { type BottleneckForm, type ExtraOp, type Table, tableOf } from './extra.ts'
import { poolOf, table } from './op-graph.ts'

/** Width of the rows that enter and leave. */
export interface Widths {
  readonly inWidth: number
  readonly outWidth: number
}

export interface BoundBottleneck {
  readonly form: BottleneckForm
  readonly tables: ReadonlyMap<string, Table>
}

/** `prefix` keeps the tables of several experts apart. */
export function bindBottleneck(adapter: Bottleneck, { inWidth, outWidth }: Widths, prefix = ''): BoundBottleneck {
  const { input, size, down, downBias, up, upBias, scale, normBefore, normAfter, normsSublayerSum, gate } = adapter
  const tables = new Map<string, Table>()
  const set = (name: string, values: Float32Array, dims: readonly number[], padded: readonly number[] = []) =>
    tables.set(`${prefix}${name}`, tableOf(values, dims, padded))
  const scaleOf = (row: number): number => (typeof scale === 'number' ? scale : (scale[row] as number))
  const biasUp = upBias ?? new Float32Array(outWidth)
  set('down', down, [size, inWidth], [0])
  set('downBias', downBias ?? new Float32Array(size), [1, size], [1])
  set('up', scale === 1 ? up : up.map((value, i) => scaleOf(Math.floor(i / size)) * value), [outWidth, size], [1])
  set('upBias', scale === 1 ? biasUp : biasUp.map((value, row) => scaleOf(row) * value), [1, outWidth])
  setNorm('normBefore', normBefore)
  setNorm('normAfter', normAfter)
  if (gate !== null) for (const [name, each] of gateTables(gate, prefix)) tables.set(name, each)
  const form: BottleneckForm = {
    kind: 'bottleneck',
    input,
    activation: adapter.activation,
    normBeforeEps: normBefore?.eps ?? null,
    normAfterEps: normAfter?.eps ?? null,
    normsSublayerSum,
    hasGate: gate !== null,
  }
  return { form, tables }

  function setNorm(name: string, norm: LayerNormWeights | null): void {
    if (norm === null) return
    set(`${name}.weight`, norm.weight, [1, norm.weight.length])
    set(`${name}.bias`, norm.bias, [1, norm.bias.length])
  }
}

export function gateTables({ weight, bias }: PooledGate, prefix = ''): ReadonlyMap<string, Table> {
  return new Map([
    [`${prefix}gate.weight`, tableOf(weight, [weight.length, 1])],
    [`${prefix}gate.bias`, tableOf(Float32Array.of(bias), [1, 1])],
  ])
}

/** A(x). x [tiles, tileRows, in] -> [tiles, tileRows, out]; `f` is added before the last norm where the form says so. */
export function bottleneckTiles(
  context: GraphContext,
  op: ExtraOp,
  form: BottleneckForm,
  { x, f, prefix = '' }: { x: Value; f: Value | null; prefix?: string },
): Value {
  const { graph } = context
  const own = (name: string) => table(context, op, `${prefix}${name}`)
  const normed =
    form.normBeforeEps === null ? x : layerNorm(context, op, `${prefix}normBefore`, form.normBeforeEps, op.inWidth, x)
  const shrunk = graph.node('Add', [graph.node('FusedMatMul', [normed, own('down')], { transB: 1 }), own('downBias')])
  const inner = activation(context, form.activation, shrunk)
  let y = graph.node('Add', [graph.node('FusedMatMul', [inner, own('up')], { transB: 1 }), own('upBias')])
  if (form.hasGate) y = graph.node('Mul', [y, gateTiles(context, op, x, prefix)])
  if (form.normsSublayerSum && f !== null) y = graph.node('Add', [y, f])
  return form.normAfterEps === null ? y : layerNorm(context, op, `${prefix}normAfter`, form.normAfterEps, op.outWidth, y)
}

/** σ(weight · x + bias), averaged over each call. [tiles, tileRows, 1] */
export function gateTiles(context: GraphContext, op: ExtraOp, x: Value, prefix = ''): Value {
  const { graph } = context
  const scores = graph.node('MatMul', [x, table(context, op, `${prefix}gate.weight`)])
  const open = graph.node('Sigmoid', [graph.node('Add', [scores, table(context, op, `${prefix}gate.bias`)])])
  return graph.node('MatMul', [poolOf(context, op), open])
}

function layerNorm(context: GraphContext, op: ExtraOp, name: string, eps: number, width: number, x: Value): Value {
  const { graph } = context
  const ones = graph.floats(`ones.${width}`, [width], new Float32Array(width).fill(1))
  const normed = graph.node('LayerNormalization', [x, ones], { axis: -1, epsilon: { float: eps } })
  const scaled = graph.node('Mul', [normed, table(context, op, `${name}.weight`)])
  return graph.node('Add', [scaled, table(context, op, `${name}.bias`)])
}
