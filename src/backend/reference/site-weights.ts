import { invariant } from '../../core/invariant.ts'
import type { ModelSource } from '../../model/model-source.ts'

/** Base parameters of one site: a linear [numOut, numIn], an embedding [numOut rows, numIn], or a norm [numOut] with numIn 1. */
export interface SiteWeights {
  readonly site: string
  readonly kind: 'linear' | 'norm' | 'embedding' | 'head'
  readonly numOut: number
  readonly numIn: number
  readonly weight: Float32Array
  readonly bias: Float32Array | null // [numOut]
}

/** Every parameter of a model in memory, by site. */
export class ModelWeights {
  readonly #sites: ReadonlyMap<string, SiteWeights>

  private constructor(sites: ReadonlyMap<string, SiteWeights>) {
    this.#sites = sites
  }

  /** Reads the whole checkpoint as float32. `onProgress` gets float32 bytes read so far. */
  static load(model: ModelSource, onProgress: (loadedBytes: number) => void = () => {}): ModelWeights {
    const sites = new Map<string, SiteWeights>()
    let loadedBytes = 0
    for (const module of model.modules.values()) {
      for (const { site, rowStart, rowEnd } of module.parts) {
        // A tied head is the base embedding. An adapter that changes `embed` leaves the head alone unless it also names `lmHead`.
        const isTiedHead = module.kind === 'head' && model.spec.tiedHead
        const weight = isTiedHead ? sites.get('embed')?.weight : model.read(site)
        invariant(weight !== undefined, 'the embedding comes before the head')
        const bias = model.parameters.has(`${site}.bias`) ? model.read(`${site}.bias`) : null
        const { kind, inFeatures: numIn } = module
        sites.set(site, { site, kind, numOut: rowEnd - rowStart, numIn, weight, bias })
        if (!isTiedHead) loadedBytes += weight.byteLength
        onProgress(loadedBytes)
      }
    }
    return new ModelWeights(sites)
  }

  find(site: string): SiteWeights | null {
    return this.#sites.get(site) ?? null
  }

  get(site: string): SiteWeights {
    const weights = this.find(site)
    invariant(weights !== null, `the model has a site ${site}`)
    return weights
  }
}
