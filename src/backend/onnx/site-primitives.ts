// An adapter's primitives at one site, checked against the model and sorted by what they do.

import type { CompiledAdapter, LowRank, Primitive, Replace, Rows, Vector, VectorSlot } from '../../adapter/primitive.ts'
import { LorikeetError } from '../../errors.ts'
import type { ModelSource } from '../../model/model-source.ts'

/** Shape of a site: a linear or head [numOut, numIn], an embedding [numOut rows, numIn], a norm [numOut]. */
export interface SiteShape {
  readonly kind: 'linear' | 'norm' | 'embedding' | 'head'
  readonly numOut: number
  readonly numIn: number
}

export interface SitePrimitives {
  readonly lowRanks: readonly LowRank[]
  readonly vectors: ReadonlyMap<VectorSlot, Float32Array>
  readonly replace: Replace | null
  readonly rows: Rows | null
}

/** Shapes of every site adapters may name. */
export function siteShapes(model: ModelSource): ReadonlyMap<string, SiteShape> {
  const shapes = new Map<string, SiteShape>()
  for (const { kind, inFeatures: numIn, parts, refusal } of model.modules.values()) {
    if (refusal !== null) continue
    for (const { site, rowStart, rowEnd } of parts) shapes.set(site, { kind, numOut: rowEnd - rowStart, numIn })
  }
  return shapes
}

/** Throws ADAPTER_REFUSED naming the site where a primitive does not fit the model. */
export function sortPrimitives(
  shapes: ReadonlyMap<string, SiteShape>,
  adapter: CompiledAdapter,
): ReadonlyMap<string, SitePrimitives> {
  const sorted = new Map<string, SitePrimitives>()
  for (const [site, primitives] of adapter.sites) {
    const refuse = (reason: string): LorikeetError =>
      new LorikeetError('ADAPTER_REFUSED', { name: adapter.name, field: site, reason })
    const shape = shapes.get(site)
    if (shape === undefined) throw refuse('the base model has no such site')
    for (const primitive of primitives) {
      const reason = misfit(shape, primitive)
      if (reason !== null) throw refuse(reason)
    }
    const lowRanks = primitives.filter((each): each is LowRank => each.kind === 'low-rank')
    const vectors = primitives.filter((each): each is Vector => each.kind === 'vector')
    const replaces = primitives.filter((each): each is Replace => each.kind === 'replace')
    const rows = primitives.filter((each): each is Rows => each.kind === 'rows')
    if (new Set(vectors.map(({ slot }) => slot)).size < vectors.length) throw refuse('two vectors fill one slot')
    if (replaces.length > 1) throw refuse('two weights replace one')
    if (rows.length > 1) throw refuse('two sets of rows')
    sorted.set(site, {
      lowRanks,
      vectors: new Map(vectors.map(({ slot, values }) => [slot, values])),
      replace: replaces[0] ?? null,
      rows: rows[0] ?? null,
    })
  }
  return sorted
}

/** Why the primitive cannot act on the site, or null. */
function misfit({ kind, numOut, numIn }: SiteShape, primitive: Primitive): string | null {
  const isTable = kind === 'embedding'
  const [inWidth, outWidth] = isTable ? [numOut, numIn] : [numIn, numOut]
  const lengths = (found: number, expected: number, what: string) =>
    found === expected ? null : `${what} has ${found} values, not ${expected}`
  switch (primitive.kind) {
    case 'low-rank':
      if (kind === 'norm') return 'a norm takes no low-rank update'
      return (
        lengths(primitive.a.length, primitive.rank * inWidth, 'A') ??
        lengths(primitive.b.length, primitive.rank * outWidth, 'B') ??
        (primitive.biasB === null ? null : lengths(primitive.biasB.length, outWidth, 'the bias of B'))
      )
    case 'vector':
      if (primitive.slot === 'input-scale' && kind !== 'linear' && kind !== 'head') return `no slot ${primitive.slot} here`
      if (primitive.slot === 'factor' && kind === 'norm') return `a norm has no slot ${primitive.slot}`
      return lengths(primitive.values.length, primitive.slot === 'input-scale' ? inWidth : outWidth, primitive.slot)
    case 'replace':
      return lengths(primitive.weight.length, kind === 'norm' ? numOut : numOut * numIn, 'the weight')
    case 'rows':
      if (!isTable && kind !== 'head') return 'single rows are served at the embeddings and the head'
      if (primitive.rowIds.some((id) => id < 0 || id >= numOut)) return `row ids must be below ${numOut}`
      return lengths(primitive.rows.length, primitive.rowIds.length * numIn, 'rows')
    default:
      return `the onnx backend does not serve ${primitive.kind}`
  }
}

export function numBytesOf({ lowRanks, vectors, replace, rows }: SitePrimitives): number {
  let numBytes = (replace?.weight.byteLength ?? 0) + (rows === null ? 0 : rows.rows.byteLength + rows.rowIds.byteLength)
  for (const values of vectors.values()) numBytes += values.byteLength
  for (const { a, b, biasB } of lowRanks) numBytes += a.byteLength + b.byteLength + (biasB?.byteLength ?? 0)
  return numBytes
}
