// Differences of single weights: dense, row by row, or sparse, whichever of them is cheapest to multiply with.

import type { Circulant, Dense, Sparse } from '../../../adapter/primitive.ts'
import type { SiteShape } from '../../../adapter/site-shapes.ts'
import type { Value } from '../graph-builder.ts'
import type { GraphContext } from '../graph-context.ts'
import { type BoundForm, type ExtraOp, tableOf } from './extra.ts'
import { rowsShape, table } from './op-graph.ts'

/**
 * Share of a row up to which its entries are gathered one by one (measured on 576 to 2048 inputs, one thread: even with the dense
 * product of one row at 4 % to 2 %, of sixteen at 2 %).
 */
const MAX_SPARSE_SHARE = 1 / 48

/** Share of rows up to which the rows that differ are multiplied alone: the others still have to be placed. */
const MAX_ROWS_SHARE = 3 / 4

export function bindDense({ delta, rowIds }: Dense, { numOut, numIn }: SiteShape): BoundForm {
  if (rowIds === null) return { form: { kind: 'dense' }, tables: new Map([['delta', tableOf(delta, [numOut, numIn])]]) }
  if (rowIds.length > MAX_ROWS_SHARE * numOut) {
    const all = new Float32Array(numOut * numIn)
    rowIds.forEach((row, i) => {
      all.set(delta.subarray(i * numIn, (i + 1) * numIn), row * numIn)
    })
    return bindDense({ kind: 'dense', delta: all, rowIds: null }, { kind: 'linear', numOut, numIn })
  }
  // A last row of zeros is what all other outputs read.
  const rows = new Float32Array((rowIds.length + 1) * numIn)
  rows.set(delta)
  const places = new Int32Array(numOut).fill(rowIds.length)
  rowIds.forEach((row, i) => {
    places[row] = i
  })
  const tables = new Map([
    ['delta', tableOf(rows, [rowIds.length + 1, numIn], [0])],
    ['places', tableOf(places, [1, numOut])],
  ])
  return { form: { kind: 'dense-rows' }, tables }
}

/** A circulant block is its kernel, turned by one from row to row. Dense: real transforms of its length cost more than the product. */
export function bindCirculant({ blockSize, kernel }: Circulant, shape: SiteShape): BoundForm {
  const { numOut, numIn } = shape
  const delta = new Float32Array(numOut * numIn)
  const numBlocks = numIn / blockSize
  for (let row = 0; row < numOut; row++) {
    const k = row % blockSize
    for (let j = 0; j < numBlocks; j++) {
      const start = (((row - k) / blockSize) * numBlocks + j) * blockSize
      const target = row * numIn + j * blockSize
      delta.set(kernel.subarray(start, start + blockSize - k), target + k)
      delta.set(kernel.subarray(start + blockSize - k, start + blockSize), target)
    }
  }
  return bindDense({ kind: 'dense', delta, rowIds: null }, shape)
}

export function bindSparse(sparse: Sparse, shape: SiteShape): BoundForm {
  const { numOut, numIn } = shape
  const { rowStarts, columns, values } = sparse
  let most = 1
  for (let row = 0; row < numOut; row++) most = Math.max(most, (rowStarts[row + 1] as number) - (rowStarts[row] as number))
  if (most > MAX_SPARSE_SHARE * numIn) return bindDense(denseOf(sparse, shape), shape)
  const ownColumns = new Int32Array(most * numOut)
  const ownValues = new Float32Array(most * numOut)
  for (let row = 0; row < numOut; row++) {
    const start = rowStarts[row] as number
    for (let k = start; k < (rowStarts[row + 1] as number); k++) {
      ownColumns[(k - start) * numOut + row] = columns[k] as number
      ownValues[(k - start) * numOut + row] = values[k] as number
    }
  }
  const tables = new Map([
    ['columns', tableOf(ownColumns, [most, numOut], [0])],
    ['values', tableOf(ownValues, [most, numOut], [0])],
  ])
  return { form: { kind: 'sparse' }, tables }
}

/** The rows with entries, or all. */
function denseOf({ rowStarts, columns, values }: Sparse, { numOut, numIn }: SiteShape): Dense {
  const rows = Array.from({ length: numOut }, (_, row) => row).filter((row) => rowStarts[row] !== rowStarts[row + 1])
  const delta = new Float32Array(rows.length * numIn)
  for (const [i, row] of rows.entries()) {
    for (let k = rowStarts[row] as number; k < (rowStarts[row + 1] as number); k++) {
      delta[i * numIn + (columns[k] as number)] = values[k] as number
    }
  }
  return { kind: 'dense', delta, rowIds: rows.length === numOut ? null : Int32Array.from(rows) }
}

/** x [tiles, tileRows, in] -> [tiles, tileRows, out] */
export function denseTiles(context: GraphContext, op: ExtraOp, x: Value): Value {
  return context.graph.node('FusedMatMul', [x, table(context, op, 'delta')], { transB: 1 })
}

export function denseRowsTiles(context: GraphContext, op: ExtraOp, x: Value): Value {
  const { graph } = context
  const places = graph.node('Expand', [table(context, op, 'places'), rowsShape(context, op)])
  return graph.node('GatherElements', [denseTiles(context, op, x), places], { axis: 2 })
}

/** Entry k of every output row at once: x at its column, times its value, summed over k. */
export function sparseTiles(context: GraphContext, op: ExtraOp, x: Value): Value {
  const { graph } = context
  const flat = graph.ints([0, 1, -1])
  const columns = graph.node('Reshape', [table(context, op, 'columns'), flat])
  const picked = graph.node('GatherElements', [x, graph.node('Expand', [columns, rowsShape(context, op)])], { axis: 2 })
  const products = graph.node('Mul', [picked, graph.node('Reshape', [table(context, op, 'values'), flat])])
  const byEntry = graph.node('Reshape', [products, graph.ints([0, 0, -1, op.outWidth])])
  return graph.node('ReduceSum', [byEntry, graph.ints([2])], { keepdims: 0 })
}
