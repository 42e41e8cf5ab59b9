// One site for the rows of one call, slot by slot, in the order that adapter/primitive.ts defines.

import { bottleneck } from '../../adapter/arithmetic/bottleneck.ts'
import { addTo, dot } from '../../adapter/arithmetic/dot.ts'
import { addRows, applyOutputSlots } from '../../adapter/arithmetic/output-slots.ts'
import { rotated } from '../../adapter/arithmetic/rotate.ts'
import type { SitePrimitives } from '../../adapter/site-primitives.ts'
import type { SiteWeights } from './site-weights.ts'

/** z = linear(x) of each row. `inputs` [numIn]; the answer's rows are [numOut]. */
export function applyLinear(
  base: SiteWeights,
  adapter: SitePrimitives | null,
  inputs: readonly Float32Array[],
): readonly Float32Array[] {
  if (adapter === null) {
    return inputs.map((x) => {
      const z = multiply(base.weight, x, base.numOut)
      if (base.bias !== null) addTo(z, base.bias)
      return z
    })
  }
  const xs = beforeSite(adapter, inputs)
  const inputScale = adapter.vectors.get('input-scale')
  const zs = xs.map((x) => {
    const turned = adapter.rotate === null ? x : rotated(x, adapter.rotate)
    const u = inputScale === undefined ? turned : turned.map((value, i) => value * (inputScale[i] as number))
    return baseProduct(base, adapter, u)
  })
  applyOutputSlots(adapter, base.bias, zs, xs)
  return zs
}

/** x + A(x) of each bottleneck before the site. */
function beforeSite({ bottlenecks }: SitePrimitives, inputs: readonly Float32Array[]): readonly Float32Array[] {
  const before = bottlenecks.filter(({ input }) => input === 'site-input')
  if (before.length === 0) return inputs
  const xs = inputs.map((x) => x.slice())
  for (const adapter of before) addRows(xs, bottleneck(adapter, xs))
  return xs
}

/** u Wᵀ, or u Rᵀ where the adapter has its own weight or rows of it. */
function baseProduct(base: SiteWeights, { replace, rows }: SitePrimitives, u: Float32Array): Float32Array {
  const z = multiply(replace?.weight ?? base.weight, u, base.numOut)
  rows?.rowIds.forEach((rowId, i) => {
    z[rowId] = dot(rows.rows.subarray(i * base.numIn, (i + 1) * base.numIn), u)
  })
  return z
}

/** W u, W [numOut, u.length]. */
export function multiply(weight: Float32Array, u: Float32Array, numOut: number): Float32Array {
  return Float32Array.from({ length: numOut }, (_, row) => dot(weight.subarray(row * u.length, (row + 1) * u.length), u))
}
