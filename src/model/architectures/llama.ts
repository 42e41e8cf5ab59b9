import type { Architecture } from './architecture.ts'
import { describeLlamaLike, readShape } from './llama-like.ts'

/** Llama 1 to 3.3 and what follows their shape (arXiv:2302.13971, arXiv:2407.21783). */
export const llama: Architecture = {
  modelTypes: ['llama'],
  describe(config) {
    const hasBias = config.boolean('attention_bias', false)
    return describeLlamaLike(config, {
      modelType: 'llama',
      shape: readShape(config),
      biases: { qkv: hasBias, o: hasBias, mlp: config.boolean('mlp_bias', false) },
    })
  },
}
