import { readActivation } from './activation.ts'
import type { Architecture } from './architecture.ts'
import { checkExpertCounts, type ExpertLayout, expertModules, stackedExpertHomes } from './experts.ts'
import { describeLlamaLike, readShape } from './llama-like.ts'

/** Mixtral (arXiv:2401.04088): every MLP is a mixture of experts whose kept weights are renormalised. */
export const mixtral: Architecture = {
  modelTypes: ['mixtral'],
  describe(config) {
    const shape = readShape(config)
    const mlp = {
      kind: 'experts',
      activation: readActivation(config, 'hidden_act', 'silu'),
      intermediateSize: shape.intermediateSize,
      numExperts: config.count('num_local_experts'),
      numExpertsPerToken: config.count('num_experts_per_tok'),
      renormalize: true,
    } as const
    checkExpertCounts(mlp)
    const layouts = Array.from({ length: shape.numLayers }, (_, layer): ExpertLayout => {
      const names = { gate: 'w1', up: 'w3', down: 'w2' }
      return { layer, hiddenSize: shape.hiddenSize, mlp, block: 'block_sparse_moe', names }
    })
    const window = config.countOrNull('sliding_window')
    return describeLlamaLike(config, {
      modelType: 'mixtral',
      shape,
      defaultTheta: 1_000_000,
      slidingWindows: new Array<number | null>(shape.numLayers).fill(window),
      mlps: layouts.map((layout) => layout.mlp),
      mlpModules: (layer) => layouts.slice(layer, layer + 1).flatMap(expertModules),
      otherHomes: new Map(layouts.flatMap(stackedExpertHomes)),
    })
  },
}
