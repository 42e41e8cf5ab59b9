import type { ConfigReader } from '../config-reader.ts'
import type { DecoderSpec } from '../decoder-spec.ts'
import type { ModuleInfo } from '../module-map.ts'
import { readActivation } from './activation.ts'
import type { Architecture } from './architecture.ts'
import { embedding, head, linear, norm } from './module-builders.ts'

interface Gpt2Shape {
  readonly vocabSize: number
  readonly hiddenSize: number
  readonly numLayers: number
  readonly numHeads: number
  readonly maxPositions: number
  readonly intermediateSize: number
}

/** GPT-2: learned positions, LayerNorm, biases everywhere, weights stored [in, out] (Conv1D), q, k and v in one of them. */
export const gpt2: Architecture = {
  modelTypes: ['gpt2'],
  describe(config) {
    config.requireOneOf('quantization_config', [], 'use the unquantised checkpoint')
    config.requireOneOf('add_cross_attention', [false], 'only decoders are served')
    config.requireOneOf('scale_attn_by_inverse_layer_idx', [false], 'layers must share one attention scale')
    const hiddenSize = config.count('n_embd')
    const shape: Gpt2Shape = {
      vocabSize: config.count('vocab_size'),
      hiddenSize,
      numLayers: config.count('n_layer'),
      numHeads: config.count('n_head'),
      maxPositions: config.count('n_positions'),
      intermediateSize: config.count('n_inner', 4 * hiddenSize),
    }
    return {
      spec: describeSpec(config, shape),
      modules: describeModules(shape),
      basePrefix: 'transformer.',
      otherHomes: new Map(),
      ignoredTensors: [/\.attn\.(bias|masked_bias)$/],
    }
  },
}

function describeSpec(config: ConfigReader, shape: Gpt2Shape): DecoderSpec {
  const headDim = Math.floor(shape.hiddenSize / shape.numHeads)
  const activation = readActivation(config, 'activation_function', 'gelu_new')
  const mlp = { kind: 'plain', activation, intermediateSize: shape.intermediateSize } as const
  return {
    modelType: 'gpt2',
    vocabSize: shape.vocabSize,
    hiddenSize: shape.hiddenSize,
    numLayers: shape.numLayers,
    numHeads: shape.numHeads,
    numKvHeads: shape.numHeads,
    headDim,
    maxPositions: shape.maxPositions,
    layers: new Array(shape.numLayers).fill({ slidingWindow: null, rope: null, mlp }),
    norm: { kind: 'layer', eps: config.positive('layer_norm_epsilon'), weightOffset: 0 },
    norms: new Set(['preAttn', 'preMlp']),
    qkNorm: 'none',
    attentionScale: config.boolean('scale_attn_weights', true) ? headDim ** -0.5 : 1,
    attentionSoftcap: null,
    finalSoftcap: null,
    embedScale: 1,
    learnedPositions: true,
    tiedHead: config.boolean('tie_word_embeddings', true),
  }
}

function describeModules(shape: Gpt2Shape): readonly ModuleInfo[] {
  const { vocabSize, hiddenSize } = shape
  const modules = [
    embedding('transformer.wte', 'embed', vocabSize, hiddenSize),
    embedding('transformer.wpe', 'positions', shape.maxPositions, hiddenSize),
  ]
  for (let layer = 0; layer < shape.numLayers; layer++) modules.push(...layerModules(shape, layer))
  modules.push(norm('transformer.ln_f', 'finalNorm', hiddenSize, { hasBias: true }), head('lm_head', vocabSize, hiddenSize))
  return modules
}

function layerModules({ hiddenSize, intermediateSize }: Gpt2Shape, layer: number): readonly ModuleInfo[] {
  const path = `transformer.h.${layer}`
  const site = `layers.${layer}`
  const conv1d = { layer, hasBias: true, isConv1d: true }
  const qkv = [[`${site}.q`, hiddenSize] as const, [`${site}.k`, hiddenSize] as const, [`${site}.v`, hiddenSize] as const]
  return [
    norm(`${path}.ln_1`, `${site}.preAttn`, hiddenSize, { layer, hasBias: true }),
    linear(`${path}.attn.c_attn`, qkv, { out: 3 * hiddenSize, in: hiddenSize }, conv1d),
    linear(`${path}.attn.c_proj`, `${site}.o`, { out: hiddenSize, in: hiddenSize }, conv1d),
    norm(`${path}.ln_2`, `${site}.preMlp`, hiddenSize, { layer, hasBias: true }),
    linear(`${path}.mlp.c_fc`, `${site}.up`, { out: intermediateSize, in: hiddenSize }, conv1d),
    linear(`${path}.mlp.c_proj`, `${site}.down`, { out: hiddenSize, in: intermediateSize }, conv1d),
  ]
}
