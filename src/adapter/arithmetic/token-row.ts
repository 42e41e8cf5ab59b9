// The row of one prompt or output token as it enters the model, before learned positions.

import type { SitePrimitives } from '../site-primitives.ts'
import { couple } from './coupling.ts'
import { addTo } from './dot.ts'
import { embeddingRow } from './embedding-row.ts'

export interface TokenRow {
  readonly id: number
  /** Index among the prompt's own tokens; beyond its end for generated ones. */
  readonly promptIndex: number
  readonly promptLength: number
}

/**
 * embed(token) · embedScale, with an adapter's change of the table under the scale, rows of positions and the coupling above it: they
 * act on what enters the model.
 */
export function tokenRow(
  table: Float32Array,
  site: SitePrimitives | null,
  { id, promptIndex, promptLength }: TokenRow,
  embedScale: number,
  out: Float32Array,
): void {
  embeddingRow(table, site, id, out)
  if (embedScale !== 1) for (let i = 0; i < out.length; i++) out[i] = (out[i] as number) * embedScale
  if (site === null) return
  const { positionRows, coupling } = site
  if (positionRows !== null && promptIndex < Math.min(promptLength, positionRows.rows.length / out.length)) {
    addTo(out, positionRows.rows.subarray(promptIndex * out.length, (promptIndex + 1) * out.length))
  }
  if (coupling !== null) couple(out, coupling)
}
