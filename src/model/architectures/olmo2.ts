import type { Architecture } from './architecture.ts'
import { describeLlamaLike, readShape } from './llama-like.ts'

/** OLMo 2 (arXiv:2501.00656): normalises after attention and MLP, not before; q and k over the whole row. */
export const olmo2: Architecture = {
  modelTypes: ['olmo2'],
  describe(config) {
    const hasBias = config.boolean('attention_bias', false)
    return describeLlamaLike(config, {
      modelType: 'olmo2',
      shape: readShape(config),
      biases: { qkv: hasBias, o: hasBias },
      norms: {
        postAttn: 'post_attention_layernorm',
        postMlp: 'post_feedforward_layernorm',
        qNorm: 'self_attn.q_norm',
        kNorm: 'self_attn.k_norm',
      },
      qkNorm: 'row',
    })
  },
}
