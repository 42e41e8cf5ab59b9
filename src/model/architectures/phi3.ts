import type { ModuleInfo } from '../module-map.ts'
import type { Architecture } from './architecture.ts'
import { type DecoderShape, describeLlamaLike, readShape } from './llama-like.ts'
import { linear } from './module-builders.ts'

/** Phi-3 and Phi-4 (arXiv:2404.14219): q, k, v in one linear, gate and up in another. Long-context variants (longrope) are refused. */
export const phi3: Architecture = {
  modelTypes: ['phi3'],
  describe(config) {
    const shape = readShape(config)
    const window = config.countOrNull('sliding_window')
    return describeLlamaLike(config, {
      modelType: 'phi3',
      shape,
      slidingWindows: new Array<number | null>(shape.numLayers).fill(window),
      attentionModules: (layer) => fusedAttention(shape, layer),
      mlpModules: (layer) => fusedMlp(shape, layer),
    })
  },
}

function fusedAttention(shape: DecoderShape, layer: number): readonly ModuleInfo[] {
  const { hiddenSize } = shape
  const qRows = shape.numHeads * shape.headDim
  const kvRows = shape.numKvHeads * shape.headDim
  const path = `model.layers.${layer}.self_attn`
  const site = `layers.${layer}`
  const parts = [[`${site}.q`, qRows] as const, [`${site}.k`, kvRows] as const, [`${site}.v`, kvRows] as const]
  return [
    // Defined in this order: some adapter files number their modules by it.
    linear(`${path}.o_proj`, `${site}.o`, { out: hiddenSize, in: qRows }, { layer }),
    linear(`${path}.qkv_proj`, parts, { out: qRows + 2 * kvRows, in: hiddenSize }, { layer }),
  ]
}

function fusedMlp(shape: DecoderShape, layer: number): readonly ModuleInfo[] {
  const { hiddenSize, intermediateSize } = shape
  const path = `model.layers.${layer}.mlp`
  const site = `layers.${layer}`
  const parts = [[`${site}.gate`, intermediateSize] as const, [`${site}.up`, intermediateSize] as const]
  return [
    linear(`${path}.gate_up_proj`, parts, { out: 2 * intermediateSize, in: hiddenSize }, { layer }),
    linear(`${path}.down_proj`, `${site}.down`, { out: hiddenSize, in: intermediateSize }, { layer }),
  ]
}
