// Where the parts of one adapter lie in its slab, and the record through which kernels find them (kernels/step.cuh).
//
//   | AdapterRecord | SiteEdit of every linear | NormEdit of every norm | vectors, matrices ... |
//
// Everything after the base product is folded into z · mul + add + B s: the product comes with the base bias b in it, so
//
//   mul = factor · outputScale        add = ((bias ?? b) - b · factor + Σ scale · biasB) · outputScale + shift
//   B   = outputScale · scale · B of the adapter

import type { CompiledAdapter } from '../../adapter/primitive.ts'
import type { SitePrimitives } from '../../adapter/site-primitives.ts'
import type { SiteShape, SiteShapes } from '../../adapter/site-shapes.ts'
import { at, invariant } from '../../core/invariant.ts'
import type { DecoderSpec } from '../../model/decoder-spec.ts'
import type { ModelSource } from '../../model/model-source.ts'
import { alignUp } from './arena.ts'
import { type CudaDtype, DTYPES } from './dtype.ts'
import { groupBit, groupOfSite, numLinearSites, numNormSites, paddedWidth, siteIndex } from './sites.ts'

/** sizeof of the structures in kernels/step.cuh. */
const RECORD_BYTES = 184
const SITE_EDIT_BYTES = 48
const NORM_EDIT_BYTES = 16
const TABLE_EDIT_BYTES = 64

/** Offsets inside AdapterRecord. */
const RECORD = {
  norms: 0,
  tables: 8,
  headRowIds: 136,
  headRows: 144,
  softPrompt: 152,
  prefixKeys: 160,
  prefixValues: 168,
  numHeadRows: 176,
  numVirtual: 180,
} as const

/** One array on its way to the slab. `offset` counts from the slab's start. */
export type SlabCopy =
  | { readonly kind: 'bytes'; readonly offset: number; readonly source: Float32Array | Int32Array }
  | {
      readonly kind: 'packed'
      readonly offset: number
      readonly source: Float32Array // [numRows, numColumns]
      readonly numRows: number
      readonly numColumns: number
      readonly ldOut: number
      readonly isTransposed: boolean
      readonly scale: number
      readonly rowScale: Float32Array | null // [numRows]
    }

/** What a step must do beside the base model's work when such an adapter has rows in it. */
export interface AdapterFeatures {
  /** Groups with low-rank updates or vectors, as bits. */
  readonly editedGroups: number
  /** Groups some of whose linears scale their input, as bits. */
  readonly scaledGroups: number
  /** Ranks of the group with the most. */
  readonly maxGroupRank: number
  readonly hasHeadRows: boolean
  /** Offset of the own weight of each linear that is replaced, by site. */
  readonly replacedLinears: ReadonlyMap<string, number>
}

export interface AdapterLayout {
  readonly numBytes: number
  readonly features: AdapterFeatures
  readonly copies: readonly SlabCopy[]
  /** Record and tables, once the slab has an address. */
  readonly record: (slab: number) => Uint8Array
}

/** A site with its shape. */
interface Place extends SiteShape {
  readonly site: string
}

/** A pointer field of the record: where the field is and what it points to, both from the slab's start. */
interface Link {
  readonly field: number
  readonly target: number
}

export interface LayoutContext {
  readonly model: ModelSource
  readonly dtype: CudaDtype
  readonly shapes: SiteShapes
}

export function layoutAdapter(
  context: LayoutContext,
  adapter: CompiledAdapter,
  sites: ReadonlyMap<string, SitePrimitives>,
): AdapterLayout {
  return new LayoutBuilder(context).build(adapter, sites)
}

class LayoutBuilder {
  readonly #context: LayoutContext
  readonly #spec: DecoderSpec
  readonly #elementBytes: number
  readonly #normsStart: number
  readonly #headerBytes: number
  readonly #copies: SlabCopy[] = []
  readonly #links: Link[] = []
  readonly #numbers: { readonly field: number; readonly value: number }[] = []
  readonly #groupRanks = new Map<string, number>()
  readonly #replaced = new Map<string, number>()
  #end: number
  #editedGroups = 0
  #scaledGroups = 0
  #hasHeadRows = false

  constructor(context: LayoutContext) {
    this.#context = context
    this.#spec = context.model.spec
    this.#elementBytes = DTYPES[context.dtype].numBytes
    this.#normsStart = RECORD_BYTES + numLinearSites(this.#spec) * SITE_EDIT_BYTES
    this.#headerBytes = this.#normsStart + numNormSites(this.#spec) * NORM_EDIT_BYTES
    this.#end = alignUp(this.#headerBytes)
  }

  build(adapter: CompiledAdapter, sites: ReadonlyMap<string, SitePrimitives>): AdapterLayout {
    this.#link(RECORD.norms, this.#normsStart)
    for (const [site, primitives] of sites) {
      const found = this.#context.shapes.get(site)
      invariant(found !== undefined, `the model has a site ${site}`)
      const shape = { ...found, site }
      if (shape.kind === 'norm') this.#addNorm(shape, primitives)
      else if (shape.kind === 'embedding') this.#addTable(shape, primitives)
      else this.#addLinear(shape, primitives)
    }
    this.#addVirtualTokens(adapter)
    const [copies, links, numbers] = [this.#copies, this.#links, this.#numbers]
    const headerBytes = this.#headerBytes
    return {
      numBytes: this.#end,
      features: {
        editedGroups: this.#editedGroups,
        scaledGroups: this.#scaledGroups,
        maxGroupRank: Math.max(0, ...this.#groupRanks.values()),
        hasHeadRows: this.#hasHeadRows,
        replacedLinears: this.#replaced,
      },
      copies,
      record: (slab) => {
        const header = new DataView(new ArrayBuffer(headerBytes))
        for (const { field, target } of links) header.setBigUint64(field, BigInt(slab + target), true)
        for (const { field, value } of numbers) header.setInt32(field, value, true)
        return new Uint8Array(header.buffer)
      },
    }
  }

  #addLinear(shape: Place, primitives: SitePrimitives): void {
    const { site, numIn } = shape
    const edit = RECORD_BYTES + siteIndex(this.#spec, site) * SITE_EDIT_BYTES
    const group = groupOfSite(site)
    const rank = this.#addLowRanks(shape, primitives, { a: edit, b: edit + 8 })
    this.#number(edit + 40, rank)
    this.#number(edit + 44, strideOf(shape))
    const hasVectors = this.#addAffine(shape, primitives, { mul: edit + 16, add: edit + 24 })
    const groupKey = site === 'lmHead' ? site : `${site.slice(0, site.lastIndexOf('.'))}.${group}`
    this.#groupRanks.set(groupKey, (this.#groupRanks.get(groupKey) ?? 0) + rank)
    if (rank > 0 || hasVectors) this.#editedGroups |= groupBit(group)
    const inputScale = primitives.vectors.get('input-scale')
    if (inputScale !== undefined) {
      this.#link(edit + 32, this.#floats(padded(inputScale)))
      this.#scaledGroups |= groupBit(group)
    }
    if (primitives.replace !== null) this.#replaced.set(site, this.#matrix(primitives.replace.weight, shape.numOut, numIn))
    if (primitives.rows === null) return
    this.#hasHeadRows = true
    this.#link(RECORD.headRowIds, this.#bytes(primitives.rows.rowIds))
    this.#link(RECORD.headRows, this.#matrix(primitives.rows.rows, primitives.rows.rowIds.length, numIn))
    this.#number(RECORD.numHeadRows, primitives.rows.rowIds.length)
  }

  #addTable(shape: Place, primitives: SitePrimitives): void {
    const { numOut, numIn } = shape
    const edit = RECORD.tables + (shape.site === 'embed' ? 0 : 1) * TABLE_EDIT_BYTES
    if (primitives.rows !== null) {
      this.#link(edit, this.#bytes(primitives.rows.rowIds))
      this.#link(edit + 8, this.#matrix(primitives.rows.rows, primitives.rows.rowIds.length, numIn))
      this.#number(edit + 56, primitives.rows.rowIds.length)
    }
    if (primitives.replace !== null) this.#link(edit + 16, this.#matrix(primitives.replace.weight, numOut, numIn))
    this.#number(edit + 60, this.#addLowRanks(shape, primitives, { a: edit + 24, b: edit + 32 }))
    this.#addAffine(shape, primitives, { mul: edit + 40, add: edit + 48 })
  }

  #addNorm(shape: Place, { replace, vectors }: SitePrimitives): void {
    const { model } = this.#context
    const edit = this.#normsStart + siteIndex(this.#spec, shape.site) * NORM_EDIT_BYTES
    const { weightOffset } = this.#spec.norm
    const outputScale = vectors.get('output-scale')
    const scaleAt = (i: number): number => (outputScale === undefined ? 1 : at(outputScale, i))
    const weight = (replace?.weight ?? model.read(shape.site)).map((value, i) => (value + weightOffset) * scaleAt(i))
    this.#link(edit, this.#floats(weight))
    const shift = vectors.get('shift')
    const base = model.parameters.has(`${shape.site}.bias`) ? model.read(`${shape.site}.bias`) : null
    const bias = vectors.get('bias') ?? base
    if (bias === null && shift === undefined) return
    const values = Float32Array.from(
      { length: shape.numOut },
      (_, i) => (bias === null ? 0 : at(bias, i)) * scaleAt(i) + (shift === undefined ? 0 : at(shift, i)),
    )
    this.#link(edit + 8, this.#floats(values))
  }

  #addVirtualTokens({ virtualTokens }: CompiledAdapter): void {
    if (virtualTokens === null) return
    this.#number(RECORD.numVirtual, virtualTokens.numTokens)
    if (virtualTokens.kind === 'soft-prompt') {
      this.#link(RECORD.softPrompt, this.#floats(virtualTokens.rows))
      return
    }
    const width = this.#spec.numKvHeads * this.#spec.headDim
    for (const [field, layers] of [
      [RECORD.prefixKeys, virtualTokens.keys],
      [RECORD.prefixValues, virtualTokens.values],
    ] as const) {
      const layerBytes = virtualTokens.numTokens * width * this.#elementBytes
      const start = this.#reserve(layerBytes * layers.length)
      layers.forEach((source, layer) => {
        this.#pack({ source, numRows: virtualTokens.numTokens, numColumns: width }, start + layer * layerBytes, width, false)
      })
      this.#link(field, start)
    }
  }

  /** All low-rank updates of a site as one of their ranks' sum; the columns of a table's A become rows. */
  #addLowRanks(shape: Place, { lowRanks, vectors }: SitePrimitives, fields: { a: number; b: number }): number {
    const rank = lowRanks.reduce((sum, each) => sum + each.rank, 0)
    if (rank === 0) return 0
    const isTable = shape.kind === 'embedding'
    const inWidth = isTable ? shape.numOut : shape.numIn
    const aStride = isTable ? rank : paddedWidth(inWidth)
    const stride = strideOf(shape)
    const a = this.#reserve((isTable ? inWidth * rank : rank * aStride) * this.#elementBytes)
    const b = this.#reserve(rank * stride * this.#elementBytes)
    const rowScale = vectors.get('output-scale') ?? null
    let first = 0
    for (const lowRank of lowRanks) {
      const aStart = a + first * (isTable ? 1 : aStride) * this.#elementBytes
      this.#pack({ source: lowRank.a, numRows: lowRank.rank, numColumns: inWidth }, aStart, aStride, isTable)
      const source = { source: lowRank.b, numRows: outWidth(shape), numColumns: lowRank.rank, scale: lowRank.scale, rowScale }
      this.#pack(source, b + first * stride * this.#elementBytes, stride, true)
      first += lowRank.rank
    }
    this.#link(fields.a, a)
    this.#link(fields.b, b)
    return rank
  }

  /** True where the site has vectors on its output. */
  #addAffine(shape: Place, { vectors, lowRanks }: SitePrimitives, fields: { mul: number; add: number }): boolean {
    const [factor, bias, outputScale, shift] = (['factor', 'bias', 'output-scale', 'shift'] as const).map((slot) =>
      vectors.get(slot),
    )
    const biased = lowRanks.filter(({ biasB }) => biasB !== null)
    if (!factor && !bias && !outputScale && !shift && biased.length === 0) return false
    const { model } = this.#context
    const base = model.parameters.has(`${shape.site}.bias`) ? model.read(`${shape.site}.bias`) : null
    const width = outWidth(shape)
    const mul = new Float32Array(strideOf(shape))
    const add = new Float32Array(strideOf(shape))
    for (let i = 0; i < width; i++) {
      const f = factor ? at(factor, i) : 1
      const o = outputScale ? at(outputScale, i) : 1
      const b = base === null ? 0 : at(base, i)
      let sum = (bias ? at(bias, i) : b) - b * f
      for (const { biasB, scale } of biased) sum += scale * (biasB === null ? 0 : at(biasB, i))
      mul[i] = f * o
      add[i] = sum * o + (shift ? at(shift, i) : 0)
    }
    if (factor || outputScale) this.#link(fields.mul, this.#floats(mul))
    this.#link(fields.add, this.#floats(add))
    return true
  }

  /** With the padding of a linear's widths, which rows of tables have none of. */
  #matrix(source: Float32Array, numRows: number, numColumns: number): number {
    const stride = paddedWidth(numColumns)
    const start = this.#reserve(paddedWidth(numRows) * stride * this.#elementBytes)
    this.#pack({ source, numRows, numColumns }, start, stride, false)
    return start
  }

  #pack(
    from: {
      source: Float32Array
      numRows: number
      numColumns: number
      scale?: number
      rowScale?: Float32Array | null
    },
    offset: number,
    ldOut: number,
    isTransposed: boolean,
  ): void {
    const { source, numRows, numColumns, scale = 1, rowScale = null } = from
    this.#copies.push({ kind: 'packed', offset, source, numRows, numColumns, ldOut, isTransposed, scale, rowScale })
  }

  #floats(source: Float32Array): number {
    return this.#bytes(source)
  }

  #bytes(source: Float32Array | Int32Array): number {
    const offset = this.#reserve(source.byteLength)
    this.#copies.push({ kind: 'bytes', offset, source })
    return offset
  }

  #reserve(numBytes: number): number {
    const start = this.#end
    this.#end += alignUp(numBytes)
    return start
  }

  #link(field: number, target: number): void {
    this.#links.push({ field, target })
  }

  #number(field: number, value: number): void {
    this.#numbers.push({ field, value })
  }
}

/** Elements from one rank of B to the next: whole 16-byte reads whatever the width of the output. */
function strideOf(shape: SiteShape): number {
  return shape.kind === 'embedding' ? shape.numIn : paddedWidth(shape.numOut)
}

/** Width of a site's output, which an embedding's rows are. */
function outWidth({ kind, numOut, numIn }: SiteShape): number {
  return kind === 'embedding' ? numIn : numOut
}

function padded(values: Float32Array): Float32Array {
  const whole = new Float32Array(paddedWidth(values.length))
  whole.set(values)
  return whole
}
