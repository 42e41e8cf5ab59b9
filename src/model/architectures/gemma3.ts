import type { ConfigReader } from '../config-reader.ts'
import type { RopeSpec } from '../decoder-spec.ts'
import type { Architecture } from './architecture.ts'
import { GEMMA_HEAD_DIM, GEMMA_NORMS } from './gemma2.ts'
import { type DecoderShape, describeLlamaLike, gatedMlp, readShape } from './llama-like.ts'
import { readRope, readRopeObject } from './rope-config.ts'
import { readLayerTypes } from './sliding-windows.ts'

const GLOBAL_THETA = 1_000_000
const LOCAL_THETA = 10_000
/** Every sixth layer sees everything. */
const SLIDING_PATTERN = 6

/** Gemma 3, text only (arXiv:2503.19786): sliding and full layers rotate differently; q and k are normalised for each head. */
export const gemma3: Architecture = {
  modelTypes: ['gemma3_text'],
  describe(config) {
    config.requireOneOf('use_bidirectional_attention', [false], 'only causal attention is served')
    const shape = readShape(config, GEMMA_HEAD_DIM)
    const hasBias = config.boolean('attention_bias', false)
    const window = config.countOrNull('sliding_window')
    const pattern = config.count('sliding_window_pattern', config.count('_sliding_window_pattern', SLIDING_PATTERN))
    const isSliding = readLayerTypes(config, shape.numLayers, (layer) => (layer + 1) % pattern !== 0)
    const ropes = readGemma3Ropes(config, shape)
    return describeLlamaLike(config, {
      modelType: 'gemma3_text',
      shape,
      biases: { qkv: hasBias, o: hasBias },
      norms: { ...GEMMA_NORMS, qNorm: 'self_attn.q_norm', kNorm: 'self_attn.k_norm' },
      qkNorm: 'head',
      normWeightOffset: 1,
      mlps: new Array(shape.numLayers).fill(gatedMlp(config, shape, 'hidden_activation', 'gelu_pytorch_tanh')),
      ropes: isSliding.map((sliding) => (sliding ? ropes.local : ropes.global)),
      slidingWindows: isSliding.map((sliding) => (sliding ? window : null)),
      attentionScale: config.positive('query_pre_attn_scalar', GEMMA_HEAD_DIM) ** -0.5,
      attentionSoftcap: config.positiveOrNull('attn_logit_softcapping'),
      finalSoftcap: config.positiveOrNull('final_logit_softcapping'),
      embedScale: Math.sqrt(shape.hiddenSize),
      isTiedByDefault: true,
    })
  },
}

/** transformers 5 keys `rope_parameters` by layer type; transformers 4 wrote `rope_local_base_freq` beside the global settings. */
function readGemma3Ropes(config: ConfigReader, shape: DecoderShape): { global: RopeSpec; local: RopeSpec } {
  const byType = config.object('rope_parameters')
  if (byType === null) {
    const global = readRope(config, { ...shape, defaultTheta: GLOBAL_THETA })
    const localTheta = config.positive('rope_local_base_freq', LOCAL_THETA)
    return { global, local: { rotaryDim: global.rotaryDim, theta: localTheta, scaling: null } }
  }
  const global = byType.object('full_attention')
  const local = byType.object('sliding_attention')
  if (global === null || local === null) {
    throw config.unsupported('rope_parameters', 'it must hold full_attention and sliding_attention')
  }
  return {
    global: readRopeObject(global, config, { ...shape, defaultTheta: GLOBAL_THETA }),
    local: readRopeObject(local, config, { ...shape, defaultTheta: LOCAL_THETA }),
  }
}
