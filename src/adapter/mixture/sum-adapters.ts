// Several adapters with weights as one: W + Σ w_i (W_i - W) at every linear, norm and embedding, Σ w_i A_i at hooks. No weights are
// merged where a sum of what the adapters compute is the same: low-rank updates stay low-rank, side by side.

import { LorikeetError } from '../../errors.ts'
import type { Bottleneck, CompiledAdapter, Primitive, Replace, Routed, Rows, SideAttention, Site } from '../primitive.ts'
import type { BaseParameters } from './base-parameters.ts'
import { type LinearDifference, linearDifference, weighted } from './linear-difference.ts'

export interface WeightedAdapter {
  readonly adapter: CompiledAdapter
  readonly weight: number
}

export type SummedAdapter = Pick<CompiledAdapter, 'sites' | 'virtualTokens' | 'invocationTokenIds'>

/** What one adapter has at a site, and its weight. */
interface Part {
  readonly name: string
  readonly primitives: readonly Primitive[]
  readonly weight: number
}

/** Throws ADAPTER_REFUSED, with the member as field, where one computes what no sum of differences is. */
export function sumAdapters(name: string, members: readonly WeightedAdapter[], base: BaseParameters): SummedAdapter {
  const refuse = (field: string, reason: string) => new LorikeetError('ADAPTER_REFUSED', { name, field, reason }, { field })
  const sites = new Map<Site, readonly Primitive[]>()
  for (const site of new Set(members.flatMap(({ adapter }) => [...adapter.sites.keys()]))) {
    const parts = members.flatMap(({ adapter, weight }) => {
      const primitives = adapter.sites.get(site)
      return primitives === undefined ? [] : [{ name: adapter.name, primitives, weight }]
    })
    const summed = sumSite(site, parts, base, (member, what) =>
      refuse(member, `${what} at ${site} cannot be summed with others`),
    )
    if (summed.length > 0) sites.set(site, summed)
  }
  return { sites, virtualTokens: soleVirtualTokens(members, refuse), invocationTokenIds: commonInvocation(members, refuse) }
}

type Refuse = (member: string, what: string) => LorikeetError

function sumSite(site: Site, parts: readonly Part[], base: BaseParameters, refuse: Refuse): readonly Primitive[] {
  const role = site.split('.')[2] ?? site
  if (role === 'embed' || role === 'positions') return sumTable(site, parts, base, refuse)
  if (role === 'attention') return parts.flatMap((part) => sideAttentions(part, refuse))
  if (role === 'attnOut' || role === 'mlpOut') return [sumHook(parts, refuse)]
  if (role === 'blockOut') throw refuse(parts[0]?.name ?? '', 'an edit of the stream')
  if (role === 'finalNorm' || /Norm$|^(pre|post)/.test(role)) return sumNorm(site, parts, base, refuse)
  return sumLinear(site, parts, base, refuse)
}

function sumLinear(site: Site, parts: readonly Part[], base: BaseParameters, refuse: Refuse): readonly Primitive[] {
  let weight: Float32Array | null = null
  const readWeight = () => (weight ??= base.weight(site))
  const differences = parts.map(({ name, primitives, weight: share }) => {
    const rows = primitives.find((primitive) => primitive.kind === 'rows')
    const others = primitives.filter((primitive) => primitive !== rows)
    const difference = linearDifference(
      others,
      readWeight,
      (length) => base.bias(site, length),
      (what) => refuse(name, what),
    )
    return { name, share, difference, rows }
  })
  const scalesInputs = differences.some(({ difference }) => difference.inputScale !== null)
  const scalesOutputs = differences.find(({ difference }) => difference.factor !== null)
  if (scalesInputs && scalesOutputs !== undefined)
    throw refuse(scalesOutputs.name, "a scale of outputs beside another's of inputs")
  const summed: Primitive[] = differences.flatMap(({ difference, share }) =>
    difference.addends.map((addend) => weighted(addend, share)),
  )
  const pick = (key: 'factor' | 'inputScale') =>
    sumAround(
      differences.flatMap(({ difference, share }) => shares(difference[key], share)),
      (length) => new Float32Array(length).fill(1),
    )
  const [factor, inputScale] = [pick('factor'), pick('inputScale')]
  const bias = sumAround(
    differences.flatMap(({ difference, share }) => shares(difference.bias, share)),
    (length) => base.bias(site, length),
  )
  if (factor !== null) summed.push({ kind: 'vector', slot: 'factor', values: factor })
  if (inputScale !== null) summed.push({ kind: 'vector', slot: 'input-scale', values: inputScale })
  if (bias !== null) summed.push({ kind: 'vector', slot: 'bias', values: bias })
  const rows = differences.flatMap(({ rows: own, share }) => (own?.kind === 'rows' ? [{ rows: own, share }] : []))
  if (rows.length > 0) summed.push(sumRows(rows, readWeight()))
  return summed
}

interface Share {
  readonly values: Float32Array
  readonly share: number
}

function shares(values: LinearDifference['factor'], share: number): readonly Share[] {
  return values === null ? [] : [{ values, share }]
}

/** center + Σ share (values - center); null where nobody has any. */
function sumAround(parts: readonly Share[], centerOf: (length: number) => Float32Array): Float32Array | null {
  const [first] = parts
  if (first === undefined) return null
  const center = centerOf(first.values.length)
  return center.map((at, i) => parts.reduce((sum, { values, share }) => sum + share * ((values[i] as number) - at), at))
}

function sumRows(parts: readonly { readonly rows: Rows; readonly share: number }[], table: Float32Array): Rows {
  const width = (parts[0]?.rows.rows.length ?? 0) / (parts[0]?.rows.rowIds.length ?? 1)
  const rowIds = Int32Array.from(new Set(parts.flatMap(({ rows }) => [...rows.rowIds]))).sort()
  const rows = new Float32Array(rowIds.length * width)
  rowIds.forEach((id, at) => {
    const own = parts.flatMap(({ rows: each, share }) => {
      const index = each.rowIds.indexOf(id)
      return index === -1 ? [] : [{ values: each.rows.subarray(index * width, (index + 1) * width), share }]
    })
    rows.set(sumAround(own, () => table.subarray(id * width, (id + 1) * width)) ?? [], at * width)
  })
  return { kind: 'rows', rowIds, rows }
}

function sumTable(site: Site, parts: readonly Part[], base: BaseParameters, refuse: Refuse): readonly Primitive[] {
  const rows: { rows: Rows; share: number }[] = []
  const tables: Share[] = []
  const summed: Primitive[] = []
  for (const { name, primitives, weight } of parts) {
    for (const primitive of primitives) {
      if (primitive.kind === 'rows') rows.push({ rows: primitive, share: weight })
      else if (primitive.kind === 'replace') tables.push({ values: primitive.weight, share: weight })
      else if (primitive.kind === 'low-rank') summed.push({ ...primitive, scale: primitive.scale * weight })
      else throw refuse(name, `the primitive ${primitive.kind}`)
    }
  }
  const table = sumAround(tables, () => base.weight(site))
  if (table !== null) summed.push({ kind: 'replace', weight: table, shape: shapeOf(parts) })
  // Rows are differences to the base's, whatever else replaces the table, and a row can be held by one of the two only.
  if (table !== null && rows.length > 0) throw refuse(parts[0]?.name ?? '', 'own rows beside an own table')
  if (rows.length > 0) summed.push(sumRows(rows, base.weight(site)))
  return summed
}

function sumNorm(site: Site, parts: readonly Part[], base: BaseParameters, refuse: Refuse): readonly Primitive[] {
  const weights: Share[] = []
  const biases: Share[] = []
  for (const { name, primitives, weight } of parts) {
    for (const primitive of primitives) {
      if (primitive.kind === 'replace') weights.push({ values: primitive.weight, share: weight })
      else if (primitive.kind === 'vector' && primitive.slot === 'bias')
        biases.push({ values: primitive.values, share: weight })
      else throw refuse(name, `the primitive ${primitive.kind} of a norm`)
    }
  }
  const weight = sumAround(weights, () => base.weight(site))
  const bias = sumAround(biases, (length) => base.bias(site, length))
  return [
    ...(weight === null ? [] : [{ kind: 'replace', weight, shape: shapeOf(parts) } satisfies Replace]),
    ...(bias === null ? [] : [{ kind: 'vector', slot: 'bias', values: bias } as const]),
  ]
}

function shapeOf(parts: readonly Part[]): readonly number[] {
  for (const { primitives } of parts) {
    for (const primitive of primitives) if (primitive.kind === 'replace') return primitive.shape
  }
  return []
}

/** f + Σ w_i A_i, each of them reading what it reads alone. */
function sumHook(parts: readonly Part[], refuse: Refuse): Routed {
  const experts: Bottleneck[] = parts.map(({ name, primitives }) => {
    const [first, second] = primitives
    if (first?.kind !== 'bottleneck' || second !== undefined) throw refuse(name, 'more than one bottleneck')
    if (first.normsSublayerSum) throw refuse(name, 'a norm over the sublayer')
    return first
  })
  const weights = Float32Array.from(parts, ({ weight }) => weight)
  return { kind: 'routed', experts, gate: { kind: 'constant', weights }, sublayerWeight: 1 }
}

function sideAttentions({ name, primitives, weight }: Part, refuse: Refuse): readonly SideAttention[] {
  return primitives.map((primitive) => {
    if (primitive.kind !== 'side-attention') throw refuse(name, `the primitive ${primitive.kind}`)
    return { ...primitive, gate: primitive.gate * weight }
  })
}

function soleVirtualTokens(members: readonly WeightedAdapter[], refuse: Refuse): CompiledAdapter['virtualTokens'] {
  const having = members.filter(({ adapter }) => adapter.virtualTokens !== null)
  const [first, second] = having
  if (first === undefined) return null
  if (second !== undefined)
    throw refuse(second.adapter.name, `its virtual tokens and those of ${first.adapter.name} cannot be summed`)
  if (first.weight !== 1) throw refuse(first.adapter.name, 'virtual tokens have no weight other than 1')
  return first.adapter.virtualTokens
}

function commonInvocation(members: readonly WeightedAdapter[], refuse: Refuse): CompiledAdapter['invocationTokenIds'] {
  const [first] = members
  const expected = JSON.stringify(first?.adapter.invocationTokenIds ?? null)
  const other = members.find(({ adapter }) => JSON.stringify(adapter.invocationTokenIds) !== expected)
  if (other !== undefined) throw refuse(other.adapter.name, 'it is activated otherwise than the others')
  return first?.adapter.invocationTokenIds ?? null
}
