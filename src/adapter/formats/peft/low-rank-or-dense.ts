// A product of two factors is served as low rank or as the matrix it makes, whichever takes fewer numbers and multiplications.

import type { ModuleInfo } from '../../../model/module-map.ts'
import type { SiteBuilder } from '../site-builder.ts'
import { product } from './matrix-product.ts'

export interface Factors {
  readonly rank: number
  readonly a: Float32Array // [rank, in]
  readonly b: Float32Array // [out, rank]
  readonly scale: number
}

/** δ = scale · B A x at a linear or the head. */
export function addProduct(sites: SiteBuilder, module: ModuleInfo, { rank, a, b, scale }: Factors): void {
  const { inFeatures, outFeatures } = module
  if (rank * (inFeatures + outFeatures) <= inFeatures * outFeatures) {
    sites.addLowRank(module, { rank, a, b, scale, biasB: null })
    return
  }
  sites.addDense(
    module,
    Float32Array.from(product(b, a, rank), (value) => scale * value),
  )
}
