// One row of an embedding table with everything an adapter may change about it.

import type { SitePrimitives } from '../site-primitives.ts'
import { bottleneck } from './bottleneck.ts'
import { addDenseRow } from './dense.ts'
import { addTo, multiplyBy } from './dot.ts'
import { addLowRankColumn } from './low-rank.ts'
import { pairRotate } from './pair-rotate.ts'
import { rotated } from './rotate.ts'
import { addSparseRow } from './sparse.ts'

/** Row `id` of `table` [numRows, out.length], the input being a one-hot row. OFT turns the row itself, R on its right. */
export function embeddingRow(table: Float32Array, site: SitePrimitives | null, id: number, out: Float32Array): void {
  const width = out.length
  const own = site?.rows?.rowIds.indexOf(id) ?? -1
  const source = own === -1 ? (site?.replace?.weight ?? table) : (site?.rows?.rows ?? table)
  const row = own === -1 ? id : own
  out.set(source.subarray(row * width, (row + 1) * width))
  if (site === null) return
  const { vectors, rotate, pairRotate: turn } = site
  const numRows = table.length / width
  if (rotate !== null) out.set(rotated(out, rotate))
  const factor = vectors.get('factor')
  if (factor !== undefined) multiplyBy(out, factor)
  const bias = vectors.get('bias')
  if (bias !== undefined) addTo(out, bias)
  for (const lowRank of site.lowRanks) addLowRankColumn(out, lowRank, id, numRows)
  for (const delta of site.deltas) {
    if (delta.kind === 'sparse') addSparseRow(out, delta, id)
    if (delta.kind === 'dense') addDenseRow(out, delta, id)
  }
  const outputScale = vectors.get('output-scale')
  if (outputScale !== undefined) multiplyBy(out, outputScale)
  if (turn !== null) pairRotate(out, turn)
  const shift = vectors.get('shift')
  if (shift !== undefined) addTo(out, shift)
  for (const adapter of site.bottlenecks) for (const added of bottleneck(adapter, [out])) addTo(out, added)
}
