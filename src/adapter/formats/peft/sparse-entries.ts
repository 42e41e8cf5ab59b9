// Entries of ΔW by coordinates, brought to rows. Entries of one place add up, as in the reference.

import type { ModuleInfo } from '../../../model/module-map.ts'
import type { SiteBuilder } from '../site-builder.ts'

export interface Entries {
  readonly rows: ArrayLike<number> // [n], each below outFeatures
  readonly columns: ArrayLike<number> // [n], each below inFeatures
  readonly values: ArrayLike<number> // [n]
}

/** A gathered multiply-add costs as much as tens of those a dense product streams through. */
const MAXIMUM_SPARSE_SHARE = 0.02

/** Adds Σ values at (row, column) to a linear or the head, dense where too many of its places are taken. */
export function addEntries(sites: SiteBuilder, module: ModuleInfo, { rows, columns, values }: Entries): void {
  const { outFeatures, inFeatures } = module
  const byPlace = new Map<number, number>()
  for (let k = 0; k < values.length; k++) {
    const place = (rows[k] as number) * inFeatures + (columns[k] as number)
    byPlace.set(place, (byPlace.get(place) ?? 0) + (values[k] as number))
  }
  if (byPlace.size > MAXIMUM_SPARSE_SHARE * outFeatures * inFeatures) {
    const delta = new Float32Array(outFeatures * inFeatures)
    for (const [place, value] of byPlace) delta[place] = value
    sites.addDense(module, delta)
    return
  }
  const places = Float64Array.from(byPlace.keys()).sort()
  const rowStarts = new Int32Array(outFeatures + 1)
  for (const place of places) {
    const next = Math.floor(place / inFeatures) + 1
    rowStarts[next] = (rowStarts[next] as number) + 1
  }
  for (let row = 0; row < outFeatures; row++) rowStarts[row + 1] = (rowStarts[row + 1] as number) + (rowStarts[row] as number)
  sites.addSparse(module, {
    rowStarts,
    columns: Int32Array.from(places, (place) => place % inFeatures),
    values: Float32Array.from(places, (place) => byPlace.get(place) ?? 0),
  })
}
