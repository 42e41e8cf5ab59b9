// An adapter's primitives at one site, sorted by the slot they fill, after checking that they fit the model.

import type { CompiledAdapter, LowRank, Primitive, Replace, Rows, VectorSlot } from '../../adapter/primitive.ts'
import { arraysOf } from '../../adapter/primitive-arrays.ts'
import { LorikeetError } from '../../errors.ts'
import type { ModelWeights, SiteWeights } from './site-weights.ts'

export interface SitePrimitives {
  readonly replace: Replace | null
  readonly rows: Rows | null
  readonly lowRanks: readonly LowRank[]
  readonly vectors: ReadonlyMap<VectorSlot, Float32Array>
}

/** Primitives by site. Throws ADAPTER_REFUSED where one does not fit the model or the site. */
export function bindAdapter(weights: ModelWeights, adapter: CompiledAdapter): ReadonlyMap<string, SitePrimitives> {
  const bound = new Map<string, SitePrimitives>()
  for (const [site, primitives] of adapter.sites) {
    const base = weights.find(site)
    if (base === null) throw refused(adapter, site, 'the base model has no such site')
    for (const primitive of primitives) checkPrimitive(adapter, base, primitive)
    bound.set(site, sortPrimitives(adapter, site, primitives))
  }
  return bound
}

/** Bytes of the arrays, as they lie in memory. */
export function primitiveBytes(primitive: Primitive): number {
  switch (primitive.kind) {
    case 'low-rank':
      return primitive.a.byteLength + primitive.b.byteLength + (primitive.biasB?.byteLength ?? 0)
    case 'vector':
      return primitive.values.byteLength
    case 'replace':
      return primitive.weight.byteLength
    case 'rows':
      return primitive.rowIds.byteLength + primitive.rows.byteLength
    default:
      return arraysOf(primitive).reduce((sum, array) => sum + array.byteLength, 0)
  }
}

function sortPrimitives(adapter: CompiledAdapter, site: string, primitives: readonly Primitive[]): SitePrimitives {
  const vectors = new Map<VectorSlot, Float32Array>()
  const lowRanks: LowRank[] = []
  let replace: Replace | null = null
  let rows: Rows | null = null
  for (const primitive of primitives) {
    if (primitive.kind === 'low-rank') lowRanks.push(primitive)
    else if (primitive.kind === 'vector') {
      if (vectors.has(primitive.slot)) throw refused(adapter, site, `two vectors fill the slot ${primitive.slot}`)
      vectors.set(primitive.slot, primitive.values)
    } else if (primitive.kind === 'replace') {
      if (replace !== null) throw refused(adapter, site, 'two weights replace one')
      replace = primitive
    } else if (primitive.kind === 'rows') {
      if (rows !== null) throw refused(adapter, site, 'two sets of rows')
      rows = primitive
    }
  }
  return { replace, rows, lowRanks, vectors }
}

/** Slots that mean something at a norm: y = normalised x · weight + bias, scaled, shifted. */
const NORM_SLOTS: readonly VectorSlot[] = ['bias', 'output-scale', 'shift']

function checkPrimitive(adapter: CompiledAdapter, base: SiteWeights, primitive: Primitive): void {
  const { site, kind, numOut, numIn } = base
  const isTable = kind === 'embedding'
  const outWidth = isTable ? numIn : numOut
  const check = (isRight: boolean, reason: string): void => {
    if (!isRight) throw refused(adapter, site, reason)
  }
  switch (primitive.kind) {
    case 'low-rank': {
      const inWidth = isTable ? numOut : numIn
      check(kind !== 'norm', 'a norm takes no low-rank update')
      check(
        primitive.a.length === primitive.rank * inWidth,
        `A has ${primitive.a.length} values, not ${primitive.rank} x ${inWidth}`,
      )
      check(
        primitive.b.length === outWidth * primitive.rank,
        `B has ${primitive.b.length} values, not ${outWidth} x ${primitive.rank}`,
      )
      check(primitive.biasB === null || primitive.biasB.length === outWidth, `the bias of B must have ${outWidth} values`)
      return
    }
    case 'vector': {
      const width = primitive.slot === 'input-scale' ? numIn : outWidth
      check(kind !== 'norm' || NORM_SLOTS.includes(primitive.slot), `a norm has no slot ${primitive.slot}`)
      check(!isTable || primitive.slot !== 'input-scale', 'an embedding has no slot input-scale')
      check(
        primitive.values.length === width,
        `the vector in slot ${primitive.slot} has ${primitive.values.length} values, not ${width}`,
      )
      return
    }
    case 'replace':
      check(
        primitive.weight.length === base.weight.length,
        `the weight has ${primitive.weight.length} values, not ${base.weight.length}`,
      )
      return
    case 'rows':
      check(isTable || kind === 'head', 'single rows are served at the embeddings and the head')
      check(primitive.rows.length === primitive.rowIds.length * numIn, `the rows must have ${numIn} values each`)
      check(
        primitive.rowIds.every((id) => id >= 0 && id < numOut),
        `row ids must be below ${numOut}`,
      )
      return
    default:
      throw refused(adapter, site, `the reference backend does not serve ${primitive.kind}`)
  }
}

function refused(adapter: CompiledAdapter, site: string, reason: string): LorikeetError {
  return new LorikeetError('ADAPTER_REFUSED', { name: adapter.name, field: site, reason })
}
