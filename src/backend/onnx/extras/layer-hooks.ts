// Extras at the hooks of a layer: behind its sublayers, on its stream, beside its attention.

import { invariant } from '../../../core/invariant.ts'
import type { Value } from '../graph-builder.ts'
import type { GraphContext } from '../graph-context.ts'
import { bottleneckTiles, gateTiles } from './bottleneck.ts'
import type { BottleneckForm, ExtraOp } from './extra.ts'
import { addToRows, opsAt, replaceRows, tilesOf } from './op-graph.ts'
import { routedBottleneckTiles } from './routed.ts'
import { sideAttentionTiles } from './side-attention.ts'
import { streamEditTiles } from './stream-edit.ts'

/** What the sublayer adds, the stream before it, its normed input; [numTokens, hidden] each. */
export interface SublayerValues {
  readonly f: Value
  readonly residual: Value
  readonly normed: Value
}

/** What the sublayer adds instead of f. `site` is an `attnOut` or `mlpOut`. */
export function sublayerOutput(context: GraphContext, site: string, values: SublayerValues): Value {
  let { f } = values
  for (const op of opsAt(context, site, 'hook')) {
    const own = tilesOf(context, op, f)
    f = replaceRows(context, op, f, hookTiles(context, op, { ...values, f: own }), op.outWidth)
  }
  return f
}

/** `f` in tiles, the others in rows. */
function hookTiles(context: GraphContext, op: ExtraOp, values: SublayerValues): Value {
  const { form } = op
  const { f } = values
  if (form.kind === 'routed-bottlenecks') {
    const [first] = form.experts
    invariant(first !== undefined, 'a mixture has experts')
    return routedBottleneckTiles(context, op, form, { s: inputOf(context, op, first, values), f })
  }
  invariant(form.kind === 'bottleneck', `${form.kind} is nothing at a hook`)
  const y = bottleneckTiles(context, op, form, { x: inputOf(context, op, form, values), f })
  return form.normsSublayerSum ? y : context.graph.node('Add', [f, y])
}

function inputOf(context: GraphContext, op: ExtraOp, { input }: BottleneckForm, values: SublayerValues): Value {
  const { f, residual, normed } = values
  if (input === 'residual') return tilesOf(context, op, residual)
  if (input === 'normed') return tilesOf(context, op, normed)
  return input === 'sum' ? context.graph.node('Add', [f, tilesOf(context, op, residual)]) : f
}

export function hasStreamEdits(context: GraphContext, layer: number): boolean {
  return opsAt(context, `layers.${layer}.blockOut`, 'stream').length > 0
}

/** The stream behind a layer. hidden [numTokens, hidden] */
export function editStream(context: GraphContext, layer: number, hidden: Value): Value {
  let out = hidden
  for (const op of opsAt(context, `layers.${layer}.blockOut`, 'stream')) {
    invariant(op.form.kind === 'stream-edit', 'an edit of the stream')
    out = addToRows(context, op, out, streamEditTiles(context, op, op.form, tilesOf(context, op, out)), op.outWidth)
  }
  return out
}

export function hasLayerRows(context: GraphContext, layer: number): boolean {
  return opsAt(context, `layers.${layer}`, 'virtual').length > 0
}

/** Rows that soft prompts add at the input of a layer, given tile row by tile row. hidden [numTokens, hidden] */
export function addLayerRows(context: GraphContext, layer: number, hidden: Value): Value {
  let out = hidden
  for (const op of opsAt(context, `layers.${layer}`, 'virtual')) {
    const dims = [`${op.key}.tiles`, `${op.key}.tileRows`, op.outWidth]
    out = addToRows(context, op, out, context.graph.input(`${op.key}.added`, 'float32', dims), op.outWidth)
  }
  return out
}

export function hasSideAttention(context: GraphContext, layer: number): boolean {
  return opsAt(context, `layers.${layer}.attention`, 'side').length > 0
}

/** heads + gate · attention(q, own keys, own values). Both [numTokens, numHeads * headDim] */
export function addSideAttention(context: GraphContext, layer: number, q: Value, heads: Value): Value {
  let out = heads
  for (const op of opsAt(context, `layers.${layer}.attention`, 'side')) {
    invariant(op.form.kind === 'side-attention', 'attention beside attention')
    out = addToRows(context, op, out, sideAttentionTiles(context, op, op.form, tilesOf(context, op, q)), op.outWidth)
  }
  return out
}

/** What scales each token's view of its prefix, 1 without one; [numTokens, 1] each. */
export interface PrefixGates {
  readonly keys: Value
  readonly values: Value
}

/** Null where no op gates a prefix. normed [numTokens, hidden] */
export function prefixGates(context: GraphContext, layer: number, normed: Value): PrefixGates | null {
  const ops = opsAt(context, `layers.${layer}.attention`, 'gates')
  if (ops.length === 0) return null
  const gateOf = (name: 'keys' | 'values'): Value => {
    let gate = context.graph.scalar(1)
    for (const op of ops) {
      const tiles = gateTiles(context, op, tilesOf(context, op, normed), `${name}.`)
      gate = replaceRows(context, op, gate, tiles, 1)
    }
    return gate
  }
  return { keys: gateOf('keys'), values: gateOf('values') }
}
