import type { Architecture } from './architecture.ts'
import { describeLlamaLike, readShape } from './llama-like.ts'

/** Mistral 7B (arXiv:2310.06825): a sliding window on every layer, unless the config says null. */
export const mistral: Architecture = {
  modelTypes: ['mistral'],
  describe(config) {
    const shape = readShape(config)
    const window = config.countOrNull('sliding_window')
    return describeLlamaLike(config, {
      modelType: 'mistral',
      shape,
      slidingWindows: new Array<number | null>(shape.numLayers).fill(window),
    })
  },
}
