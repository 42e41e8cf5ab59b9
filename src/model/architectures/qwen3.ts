import type { Architecture } from './architecture.ts'
import { describeLlamaLike, readShape } from './llama-like.ts'
import { readQwenWindows } from './qwen2.ts'

/** HF's default where a config leaves `head_dim` out. */
const DEFAULT_HEAD_DIM = 128

/** Names of Qwen 3's norms; q and k are normalised for each head. */
export const QWEN3_NORMS = {
  preAttn: 'input_layernorm',
  preMlp: 'post_attention_layernorm',
  qNorm: 'self_attn.q_norm',
  kNorm: 'self_attn.k_norm',
} as const

/** Qwen 3 dense (arXiv:2505.09388). */
export const qwen3: Architecture = {
  modelTypes: ['qwen3'],
  describe(config) {
    const shape = readShape(config, DEFAULT_HEAD_DIM)
    const hasBias = config.boolean('attention_bias', false)
    return describeLlamaLike(config, {
      modelType: 'qwen3',
      shape,
      biases: { qkv: hasBias, o: hasBias },
      norms: QWEN3_NORMS,
      qkNorm: 'head',
      slidingWindows: readQwenWindows(config, shape),
    })
  },
}
