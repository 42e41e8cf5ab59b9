// Base parameters by canonical site, as a sum over adapters needs them: what an adapter puts in place of one is a difference to it.

import type { ModelSource } from '../../model/model-source.ts'

export interface BaseParameters {
  /** [out, in], [vocab, hidden] or a norm's [n]; the head of a tied model is its embedding. */
  weight(site: string): Float32Array
  /** Zeros where the base has none. */
  bias(site: string, length: number): Float32Array
}

export function baseParameters(model: ModelSource): BaseParameters {
  return {
    weight: (site) => model.read(site === 'lmHead' && model.spec.tiedHead ? 'embed' : site),
    bias: (site, length) => (model.parameters.has(`${site}.bias`) ? model.read(`${site}.bias`) : new Float32Array(length)),
  }
}
