// Weighted means of the adapters' own tensors: Σ w_i A_i and Σ w_i B_i, each matrix for itself (LoRAHub, arXiv:2307.13269; AdapterSoup,
// arXiv:2302.07027; AdaMix, arXiv:2205.12410). Not a sum of what the adapters compute: products of the means have cross terms, as meant.

import { LorikeetError } from '../../errors.ts'
import type { CompiledAdapter, Primitive, Site } from '../primitive.ts'
import { tagOf } from '../primitive-arrays.ts'
import type { SummedAdapter, WeightedAdapter } from './sum-adapters.ts'

/** Throws ADAPTER_REFUSED, with the member as field, where one is not built as the first is. */
export function averageAdapters(name: string, members: readonly WeightedAdapter[]): SummedAdapter {
  const [first] = members
  const refuse = (field: string, reason: string) => new LorikeetError('ADAPTER_REFUSED', { name, field, reason }, { field })
  if (first === undefined) throw refuse('members', 'are none')
  for (const { adapter } of members) {
    const reason = mismatch(first.adapter, adapter)
    if (reason !== null)
      throw refuse(adapter.name, `${reason}, so its tensors cannot be averaged with those of ${first.adapter.name}`)
  }
  const sites = new Map<Site, readonly Primitive[]>()
  for (const [site, primitives] of first.adapter.sites) {
    const rows = members.map(({ adapter }) => adapter.sites.get(site) ?? [])
    sites.set(
      site,
      primitives.map(
        (_, i) =>
          mean(
            rows.map((row) => row[i]),
            weightsOf(members),
          ) as Primitive,
      ),
    )
  }
  const virtual = members.map(({ adapter }) => adapter.virtualTokens)
  return {
    sites,
    virtualTokens: mean(virtual, weightsOf(members)) as CompiledAdapter['virtualTokens'],
    invocationTokenIds: first.adapter.invocationTokenIds,
  }
}

function weightsOf(members: readonly WeightedAdapter[]): readonly number[] {
  return members.map(({ weight }) => weight)
}

function mismatch(a: CompiledAdapter, b: CompiledAdapter): string | null {
  const missing = [...a.sites.keys(), ...b.sites.keys()].find((site) => !a.sites.has(site) || !b.sites.has(site))
  if (missing !== undefined) return `only one of them adapts ${missing}`
  for (const [site, primitives] of a.sites) {
    if (tagOf(primitives) !== tagOf(b.sites.get(site))) return `it has other primitives, ranks or scales at ${site}`
  }
  if (tagOf(a.virtualTokens) !== tagOf(b.virtualTokens)) return 'it has other virtual tokens'
  return tagOf(a.invocationTokenIds) === tagOf(b.invocationTokenIds) ? null : 'it is activated otherwise'
}

/** Of values alike in all but the numbers in their arrays. */
function mean(values: readonly unknown[], weights: readonly number[]): unknown {
  const [first] = values
  if (first instanceof Float32Array) {
    return first.map((_, i) =>
      values.reduce<number>((sum, each, m) => sum + (weights[m] as number) * ((each as Float32Array)[i] as number), 0),
    )
  }
  if (first instanceof Int32Array || typeof first !== 'object' || first === null) return first
  if (Array.isArray(first))
    return first.map((_, i) =>
      mean(
        values.map((each) => (each as unknown[])[i]),
        weights,
      ),
    )
  return Object.fromEntries(
    Object.keys(first).map((key) => [
      key,
      mean(
        values.map((each) => (each as Record<string, unknown>)[key]),
        weights,
      ),
    ]),
  )
}
