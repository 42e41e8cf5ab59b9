// What the graph of every op is built with: its tables, the tiles of its rows, and the way back to token rows.

import { invariant } from '../../../core/invariant.ts'
import type { Value } from '../graph-builder.ts'
import type { GraphContext } from '../graph-context.ts'
import type { ExtraOp, Stage } from './extra.ts'

/** Ops of the session's steps at a site and stage, in the order they act. */
export function opsAt({ variant }: GraphContext, site: string, stage: Stage): readonly ExtraOp[] {
  return variant.extras.filter((op) => op.site === site && op.stage === stage)
}

/** One entry an adapter: [tiles, ...dims]. */
export function table({ graph }: GraphContext, op: ExtraOp, name: string): Value {
  const shape = op.tables.get(name)
  invariant(shape !== undefined, `${op.form.kind} has a table ${name}`)
  const dims = shape.dims.map((dim, axis) => dim ?? `${op.key}.${name}.${axis}`)
  return graph.input(`${op.key}.${name}`, shape.type, [`${op.key}.tiles`, ...dims])
}

/** x [numTokens, width] -> [tiles, tileRows, width] */
export function tilesOf({ graph }: GraphContext, op: ExtraOp, x: Value): Value {
  const rows = graph.input(`${op.key}.rows`, 'int32', [`${op.key}.tiles`, `${op.key}.tileRows`])
  return graph.node('Gather', [x, rows], { axis: 0 })
}

/** Averages the rows of each call of a tile. [tiles, tileRows, tileRows] */
export function poolOf({ graph }: GraphContext, op: ExtraOp): Value {
  return graph.input(`${op.key}.pool`, 'float32', [`${op.key}.tiles`, `${op.key}.tileRows`, `${op.key}.tileRows`])
}

/** [1, tileRows, 1]: an index of one row is expanded to all rows of a tile by it. */
export function rowsShape({ graph }: GraphContext, op: ExtraOp): Value {
  return graph.input(`${op.key}.rowsShape`, 'int64', [3])
}

/** Rows of the op's adapters become those of the tiles; others stay. `rows` [numTokens, width], `tiles` [tiles, tileRows, width]. */
export function replaceRows(context: GraphContext, op: ExtraOp, rows: Value, tiles: Value, width: number): Value {
  return context.graph.node('Where', [isAdapted(context, op), backToRows(context, op, tiles, width), rows])
}

export function addToRows(context: GraphContext, op: ExtraOp, rows: Value, tiles: Value, width: number): Value {
  const { graph } = context
  const sum = graph.node('Add', [rows, backToRows(context, op, tiles, width)])
  return graph.node('Where', [isAdapted(context, op), sum, rows])
}

export function multiplyRows(context: GraphContext, op: ExtraOp, rows: Value, tiles: Value, width: number): Value {
  const { graph } = context
  const product = graph.node('Mul', [rows, backToRows(context, op, tiles, width)])
  return graph.node('Where', [isAdapted(context, op), product, rows])
}

function isAdapted({ graph }: GraphContext, op: ExtraOp): Value {
  return graph.input(`${op.key}.isAdapted`, 'bool', ['numTokens', 1])
}

function backToRows({ graph }: GraphContext, op: ExtraOp, tiles: Value, width: number): Value {
  const flat = graph.node('Reshape', [tiles, graph.ints([-1, width])])
  return graph.node('Gather', [flat, graph.input(`${op.key}.ofToken`, 'int32', ['numTokens'])], { axis: 0 })
}
