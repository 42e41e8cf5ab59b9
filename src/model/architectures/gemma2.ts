import type { Architecture } from './architecture.ts'
import { describeLlamaLike, gatedMlp, readShape } from './llama-like.ts'
import { readSlidingWindows } from './sliding-windows.ts'

/** HF's default where a config leaves `head_dim` out. */
export const GEMMA_HEAD_DIM = 256

/** Gemma normalises before and after attention and MLP. */
export const GEMMA_NORMS = {
  preAttn: 'input_layernorm',
  postAttn: 'post_attention_layernorm',
  preMlp: 'pre_feedforward_layernorm',
  postMlp: 'post_feedforward_layernorm',
} as const

/** Gemma 2 (arXiv:2408.00118): soft caps, and a sliding window on every second layer from the first. */
export const gemma2: Architecture = {
  modelTypes: ['gemma2'],
  describe(config) {
    config.requireOneOf('use_bidirectional_attention', [false], 'only causal attention is served')
    const shape = readShape(config, GEMMA_HEAD_DIM)
    const hasBias = config.boolean('attention_bias', false)
    const window = config.countOrNull('sliding_window')
    return describeLlamaLike(config, {
      modelType: 'gemma2',
      shape,
      biases: { qkv: hasBias, o: hasBias },
      norms: GEMMA_NORMS,
      normWeightOffset: 1,
      mlps: new Array(shape.numLayers).fill(gatedMlp(config, shape, 'hidden_activation', 'gelu_pytorch_tanh')),
      slidingWindows: readSlidingWindows(config, shape.numLayers, window, (layer) => layer % 2 === 0),
      attentionScale: config.positive('query_pre_attn_scalar', GEMMA_HEAD_DIM) ** -0.5,
      attentionSoftcap: config.positiveOrNull('attn_logit_softcapping'),
      finalSoftcap: config.positiveOrNull('final_logit_softcapping'),
      embedScale: Math.sqrt(shape.hiddenSize),
      isTiedByDefault: true,
    })
  },
}
