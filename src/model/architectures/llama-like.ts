// What most decoders share: the shapes, names and order of Llama. Each family states where it differs.

import { LorikeetError } from '../../errors.ts'
import type { ConfigReader } from '../config-reader.ts'
import type { DecoderSpec, LayerSpec, MlpSpec, NormRole, NormSpec, RopeSpec } from '../decoder-spec.ts'
import type { ModuleInfo } from '../module-map.ts'
import { readActivation } from './activation.ts'
import type { ModelDescription, TensorHome } from './architecture.ts'
import { embedding, head, linear, norm } from './module-builders.ts'
import { readRope, scaledMaxPositions } from './rope-config.ts'

/** Sizes every Llama-like config states. */
export interface DecoderShape {
  readonly vocabSize: number
  readonly hiddenSize: number
  readonly numLayers: number
  readonly numHeads: number
  readonly numKvHeads: number
  readonly headDim: number
  readonly maxPositions: number
  readonly intermediateSize: number
}

export interface LlamaLike {
  readonly modelType: string
  readonly shape: DecoderShape
  /** Each layer's rotation; absent = `readRope` for all. */
  readonly ropes?: readonly RopeSpec[]
  readonly defaultTheta?: number
  /** Each layer's window; absent = full attention. */
  readonly slidingWindows?: readonly (number | null)[]
  /** Each layer's MLP; absent = gated with `hidden_act`. */
  readonly mlps?: readonly MlpSpec[]
  readonly biases?: { readonly qkv?: boolean; readonly o?: boolean; readonly mlp?: boolean }
  /** Names of the layer's norms under `model.layers.N.`; absent = Llama's two. */
  readonly norms?: Partial<Record<NormRole, string>>
  readonly qkNorm?: DecoderSpec['qkNorm']
  readonly normWeightOffset?: NormSpec['weightOffset']
  readonly attentionScale?: number
  readonly attentionSoftcap?: number | null
  readonly finalSoftcap?: number | null
  readonly embedScale?: number
  readonly isTiedByDefault?: boolean
  /** Attention linears and their names; absent = q, k, v and o apart. */
  readonly attentionModules?: (layer: number) => readonly ModuleInfo[]
  /** MLP linears; absent = gate, up and down apart. */
  readonly mlpModules?: (layer: number) => readonly ModuleInfo[]
  readonly otherHomes?: ReadonlyMap<string, TensorHome>
}

const LLAMA_NORMS: Partial<Record<NormRole, string>> = {
  preAttn: 'input_layernorm',
  preMlp: 'post_attention_layernorm',
}

/** `defaultHeadDim` is the family's own where the config may leave it out; absent = hidden size over heads. */
export function readShape(config: ConfigReader, defaultHeadDim?: number): DecoderShape {
  config.requireOneOf('quantization_config', [], 'use the unquantised checkpoint')
  const hiddenSize = config.count('hidden_size')
  const numHeads = config.count('num_attention_heads')
  const numKvHeads = config.count('num_key_value_heads', numHeads)
  if (numHeads % numKvHeads !== 0) {
    throw new LorikeetError('MODEL_INVALID', {
      reason: `config.json: num_attention_heads (${numHeads}) is no multiple of num_key_value_heads (${numKvHeads})`,
    })
  }
  return {
    vocabSize: config.count('vocab_size'),
    hiddenSize,
    numLayers: config.count('num_hidden_layers'),
    numHeads,
    numKvHeads,
    headDim: config.count('head_dim', defaultHeadDim ?? Math.floor(hiddenSize / numHeads)),
    maxPositions: config.count('max_position_embeddings'),
    intermediateSize: config.count('intermediate_size'),
  }
}

export function gatedMlp(config: ConfigReader, shape: DecoderShape, field = 'hidden_act', fallback = 'silu'): MlpSpec {
  const activation = readActivation(config, field, fallback)
  return { kind: 'gated', activation, intermediateSize: shape.intermediateSize }
}

export function describeLlamaLike(config: ConfigReader, family: LlamaLike): ModelDescription {
  const { shape } = family
  const norms = family.norms ?? LLAMA_NORMS
  const layers = describeLayers(config, family)
  const spec: DecoderSpec = {
    modelType: family.modelType,
    vocabSize: shape.vocabSize,
    hiddenSize: shape.hiddenSize,
    numLayers: shape.numLayers,
    numHeads: shape.numHeads,
    numKvHeads: shape.numKvHeads,
    headDim: shape.headDim,
    maxPositions: maxPositionsOf(family, layers),
    layers,
    norm: { kind: 'rms', eps: config.positive('rms_norm_eps'), weightOffset: family.normWeightOffset ?? 0 },
    norms: new Set(Object.keys(norms) as NormRole[]),
    qkNorm: family.qkNorm ?? 'none',
    attentionScale: family.attentionScale ?? shape.headDim ** -0.5,
    attentionSoftcap: family.attentionSoftcap ?? null,
    finalSoftcap: family.finalSoftcap ?? null,
    embedScale: family.embedScale ?? 1,
    learnedPositions: false,
    tiedHead: config.boolean('tie_word_embeddings', family.isTiedByDefault ?? false),
  }
  return {
    spec,
    modules: describeModules(family, norms),
    basePrefix: 'model.',
    otherHomes: family.otherHomes ?? new Map(),
    ignoredTensors: [/\.rotary_emb\.inv_freq$/],
  }
}

function describeLayers(config: ConfigReader, family: LlamaLike): readonly LayerSpec[] {
  const { shape } = family
  const sharedRope =
    family.ropes === undefined ? readRope(config, { ...shape, defaultTheta: family.defaultTheta ?? 10_000 }) : null
  const sharedMlp = family.mlps === undefined ? gatedMlp(config, shape) : null
  return Array.from({ length: shape.numLayers }, (_, layer) => {
    const mlp = family.mlps?.[layer] ?? sharedMlp
    if (mlp === null) throw new LorikeetError('INTERNAL', { detail: `layer ${layer} has no mlp` })
    return { slidingWindow: family.slidingWindows?.[layer] ?? null, rope: family.ropes?.[layer] ?? sharedRope, mlp }
  })
}

/** Families with a rotation of their own for each layer (Gemma 3) state the length after scaling. */
function maxPositionsOf(family: LlamaLike, layers: readonly LayerSpec[]): number {
  const rope = layers[0]?.rope ?? null
  if (family.ropes !== undefined || rope === null) return family.shape.maxPositions
  return scaledMaxPositions(family.shape.maxPositions, rope)
}

function describeModules(family: LlamaLike, norms: Partial<Record<NormRole, string>>): readonly ModuleInfo[] {
  const { vocabSize, hiddenSize, numLayers } = family.shape
  const modules: ModuleInfo[] = [embedding('model.embed_tokens', 'embed', vocabSize, hiddenSize)]
  for (let layer = 0; layer < numLayers; layer++) {
    modules.push(
      ...(family.attentionModules?.(layer) ?? attentionModules(family, layer)),
      ...(family.mlpModules?.(layer) ?? gatedMlpModules(family.shape, layer, family.biases?.mlp ?? false)),
    )
    for (const [role, name] of Object.entries(norms) as [NormRole, string][]) {
      modules.push(norm(`model.layers.${layer}.${name}`, `layers.${layer}.${role}`, normWidth(family, role), { layer }))
    }
  }
  modules.push(norm('model.norm', 'finalNorm', hiddenSize), head('lm_head', vocabSize, hiddenSize))
  return modules
}

function attentionModules(family: LlamaLike, layer: number): readonly ModuleInfo[] {
  const { hiddenSize, numHeads, numKvHeads, headDim } = family.shape
  const path = `model.layers.${layer}.self_attn`
  const site = `layers.${layer}`
  const qkv = { layer, hasBias: family.biases?.qkv ?? false }
  const kv = { out: numKvHeads * headDim, in: hiddenSize }
  return [
    linear(`${path}.q_proj`, `${site}.q`, { out: numHeads * headDim, in: hiddenSize }, qkv),
    linear(`${path}.k_proj`, `${site}.k`, kv, qkv),
    linear(`${path}.v_proj`, `${site}.v`, kv, qkv),
    linear(
      `${path}.o_proj`,
      `${site}.o`,
      { out: hiddenSize, in: numHeads * headDim },
      { layer, hasBias: family.biases?.o ?? false },
    ),
  ]
}

export function gatedMlpModules(shape: DecoderShape, layer: number, hasBias = false): readonly ModuleInfo[] {
  const path = `model.layers.${layer}.mlp`
  const site = `layers.${layer}`
  const wide = { out: shape.intermediateSize, in: shape.hiddenSize }
  return [
    linear(`${path}.gate_proj`, `${site}.gate`, wide, { layer, hasBias }),
    linear(`${path}.up_proj`, `${site}.up`, wide, { layer, hasBias }),
    linear(`${path}.down_proj`, `${site}.down`, { out: shape.hiddenSize, in: shape.intermediateSize }, { layer, hasBias }),
  ]
}

function normWidth(family: LlamaLike, role: NormRole): number {
  const { hiddenSize, numHeads, numKvHeads, headDim } = family.shape
  if (role !== 'qNorm' && role !== 'kNorm') return hiddenSize
  if (family.qkNorm === 'head') return headDim
  return (role === 'qNorm' ? numHeads : numKvHeads) * headDim
}
