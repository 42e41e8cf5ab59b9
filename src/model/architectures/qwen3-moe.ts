import type { ConfigReader } from '../config-reader.ts'
import { readActivation } from './activation.ts'
import type { Architecture } from './architecture.ts'
import { checkExpertCounts, type ExpertLayout, expertModules, stackedExpertHomes } from './experts.ts'
import { type DecoderShape, describeLlamaLike, gatedMlp, gatedMlpModules, readShape } from './llama-like.ts'
import { QWEN3_NORMS } from './qwen3.ts'

/** Qwen 3 mixtures (arXiv:2505.09388): some layers may stay dense. */
export const qwen3Moe: Architecture = {
  modelTypes: ['qwen3_moe'],
  describe(config) {
    const shape = readShape(config)
    const hasBias = config.boolean('attention_bias', false)
    const window = config.boolean('use_sliding_window', false) ? config.countOrNull('sliding_window') : null
    const layouts = readExpertLayouts(config, shape)
    const dense = gatedMlp(config, shape)
    return describeLlamaLike(config, {
      modelType: 'qwen3_moe',
      shape,
      biases: { qkv: hasBias, o: hasBias },
      norms: QWEN3_NORMS,
      qkNorm: 'head',
      slidingWindows: new Array<number | null>(shape.numLayers).fill(window),
      mlps: layouts.map((layout) => layout?.mlp ?? dense),
      mlpModules: (layer) => {
        const layout = layouts[layer] ?? null
        return layout === null ? gatedMlpModules(shape, layer) : expertModules(layout)
      },
      otherHomes: new Map(layouts.flatMap((layout) => (layout === null ? [] : stackedExpertHomes(layout)))),
    })
  },
}

/** One layout a layer; null = a dense MLP. */
function readExpertLayouts(config: ConfigReader, shape: DecoderShape): readonly (ExpertLayout | null)[] {
  const mlp = {
    kind: 'experts',
    activation: readActivation(config, 'hidden_act', 'silu'),
    intermediateSize: config.count('moe_intermediate_size'),
    numExperts: config.count(config.has('num_experts') ? 'num_experts' : 'num_local_experts'),
    numExpertsPerToken: config.count('num_experts_per_tok'),
    renormalize: config.boolean('norm_topk_prob', false),
  } as const
  checkExpertCounts(mlp)
  const step = config.count('decoder_sparse_step', 1)
  const dense = new Set(config.integers('mlp_only_layers'))
  return Array.from({ length: shape.numLayers }, (_, layer): ExpertLayout | null => {
    if (dense.has(layer) || (layer + 1) % step !== 0) return null
    const names = { gate: 'gate_proj', up: 'up_proj', down: 'down_proj' }
    return { layer, hiddenSize: shape.hiddenSize, mlp, block: 'mlp', names }
  })
}
