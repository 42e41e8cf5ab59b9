// One site for one row, slot by slot, in the order that adapter/primitive.ts defines.

import type { LowRank } from '../../adapter/primitive.ts'
import { dot } from './matrix.ts'
import type { SitePrimitives } from './site-primitives.ts'
import type { SiteWeights } from './site-weights.ts'

/** z = linear(x). `x` [numIn], `out` [numOut]. */
export function applyLinear(base: SiteWeights, adapter: SitePrimitives | null, x: Float32Array, out: Float32Array): void {
  const inputScale = adapter?.vectors.get('input-scale')
  const u = inputScale === undefined ? x : x.map((value, i) => value * (inputScale[i] as number))
  multiply(adapter?.replace?.weight ?? base.weight, u, out)
  if (adapter?.rows) {
    const { rowIds, rows } = adapter.rows
    rowIds.forEach((rowId, i) => {
      out[rowId] = dot(rows.subarray(i * base.numIn, (i + 1) * base.numIn), u)
    })
  }
  applyOutputSlots(base.bias, adapter, out, (lowRank) => shrink(lowRank, x))
}

/** Row `id` of an embedding. `out` [numIn]: an embedding's input is a one-hot row, so A's product is its column `id`. */
export function applyEmbedding(base: SiteWeights, adapter: SitePrimitives | null, id: number, out: Float32Array): void {
  const width = base.numIn
  const own = adapter?.rows?.rowIds.indexOf(id) ?? -1
  const table = own === -1 ? (adapter?.replace?.weight ?? base.weight) : (adapter?.rows?.rows ?? base.weight)
  const row = own === -1 ? id : own
  out.set(table.subarray(row * width, (row + 1) * width))
  applyOutputSlots(null, adapter, out, (lowRank) => columnOf(lowRank, id, base.numOut))
}

/** Everything after the base product. `shrunk` gives A x, [rank]. */
function applyOutputSlots(
  baseBias: Float32Array | null,
  adapter: SitePrimitives | null,
  z: Float32Array,
  shrunk: (lowRank: LowRank) => Float64Array,
): void {
  if (adapter === null) {
    if (baseBias !== null) addTo(z, baseBias)
    return
  }
  const { vectors, lowRanks } = adapter
  const bias = vectors.get('bias') ?? baseBias
  scale(z, vectors.get('factor'))
  if (bias !== null) addTo(z, bias)
  for (const lowRank of lowRanks) addLowRank(z, lowRank, shrunk(lowRank))
  scale(z, vectors.get('output-scale'))
  const shift = vectors.get('shift')
  if (shift !== undefined) addTo(z, shift)
}

/** out = W u, W [out, in]. */
export function multiply(weight: Float32Array, u: Float32Array, out: Float32Array): void {
  for (let row = 0; row < out.length; row++) out[row] = dot(weight.subarray(row * u.length, (row + 1) * u.length), u)
}

function shrink({ rank, a }: LowRank, x: Float32Array): Float64Array {
  const inner = new Float64Array(rank)
  for (let r = 0; r < rank; r++) inner[r] = dot(a.subarray(r * x.length, (r + 1) * x.length), x)
  return inner
}

function columnOf({ rank, a }: LowRank, column: number, numColumns: number): Float64Array {
  return Float64Array.from({ length: rank }, (_, r) => a[r * numColumns + column] as number)
}

function addLowRank(z: Float32Array, { rank, b, scale: factor, biasB }: LowRank, inner: Float64Array): void {
  for (let row = 0; row < z.length; row++) {
    let delta = biasB === null ? 0 : (biasB[row] as number)
    for (let r = 0; r < rank; r++) delta += (b[row * rank + r] as number) * (inner[r] as number)
    z[row] = (z[row] as number) + factor * delta
  }
}

function scale(z: Float32Array, factor: Float32Array | undefined): void {
  if (factor === undefined) return
  for (let i = 0; i < z.length; i++) z[i] = (z[i] as number) * (factor[i] as number)
}

function addTo(z: Float32Array, values: Float32Array): void {
  for (let i = 0; i < z.length; i++) z[i] = (z[i] as number) + (values[i] as number)
}
