// A random Llama of SmolLM-135M's shape and random LoRA adapters for it, in Hugging Face layout and without a tokenizer.
//
//   node --import tsx bench/random-model.ts --out .cache/bench/smollm-135m --adapters 16 --rank 16
//
// writes OUT/model and OUT/adapters/lora-00 … Same seed, same bytes. What is already there is kept.
// `--shape stories260k` is the demo model's shape: its adapters fit demo/model.

import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import { LorikeetError } from '../src/errors.ts'
import { type TensorShape, writeSafetensors } from './safetensors-writer.ts'

export interface LlamaShape {
  readonly hiddenSize: number
  readonly intermediateSize: number
  readonly numLayers: number
  readonly numHeads: number
  readonly numKvHeads: number
  readonly headDim: number
  readonly vocabSize: number
  readonly maxPositions: number
}

export const SHAPES = {
  'smollm-135m': {
    hiddenSize: 576,
    intermediateSize: 1536,
    numLayers: 30,
    numHeads: 9,
    numKvHeads: 3,
    headDim: 64,
    vocabSize: 49_152,
    maxPositions: 2048,
  },
  stories260k: {
    hiddenSize: 64,
    intermediateSize: 172,
    numLayers: 5,
    numHeads: 8,
    numKvHeads: 4,
    headDim: 8,
    vocabSize: 512,
    maxPositions: 512,
  },
} as const satisfies Record<string, LlamaShape>

export type ShapeName = keyof typeof SHAPES

export interface RandomModelOptions {
  /** Folder that holds `model` and `adapters`. */
  readonly out: string
  readonly shape: ShapeName
  readonly seed: number
}

export interface RandomAdapterOptions extends RandomModelOptions {
  readonly numAdapters: number
  readonly rank: number
}

/**
 * Layer weights this wide make every layer add about one unit to the residual stream, while the embedding adds far less:
 * with a tied head, a dominant embedding would make greedy decoding repeat the last token whatever the layers compute.
 */
const LAYER_STD = 0.04
const EMBED_STD = 0.02
/** With alpha = 2 r and rank 16 the product A·B is then a sixth of a base weight: it changes tokens, and explodes nothing. */
const LORA_A_STD = 0.04
const LORA_B_STD = 0.02

const ROPE_THETA = 10_000
const NORM_EPS = 1e-5

/** Linears of one layer: path in the HF layer, [out, in]. */
export function layerLinears(
  shape: LlamaShape,
): readonly { readonly path: string; readonly out: number; readonly in: number }[] {
  const { hiddenSize, intermediateSize } = shape
  const q = shape.numHeads * shape.headDim
  const kv = shape.numKvHeads * shape.headDim
  return [
    { path: 'self_attn.q_proj', out: q, in: hiddenSize },
    { path: 'self_attn.k_proj', out: kv, in: hiddenSize },
    { path: 'self_attn.v_proj', out: kv, in: hiddenSize },
    { path: 'self_attn.o_proj', out: hiddenSize, in: q },
    { path: 'mlp.gate_proj', out: intermediateSize, in: hiddenSize },
    { path: 'mlp.up_proj', out: intermediateSize, in: hiddenSize },
    { path: 'mlp.down_proj', out: hiddenSize, in: intermediateSize },
  ]
}

/** Writes the model unless it is there; answers its folder. */
export function ensureRandomModel({ out, shape, seed }: RandomModelOptions): string {
  const dir = join(out, 'model')
  once(dir, `${shape} seed ${seed}`, () => writeModel(dir, SHAPES[shape], seed))
  return dir
}

/** Writes the adapters that are not there; answers their folders. */
export function ensureRandomAdapters({ out, shape, seed, numAdapters, rank }: RandomAdapterOptions): readonly string[] {
  return Array.from({ length: numAdapters }, (_, index) => {
    const dir = join(out, 'adapters', `lora-${String(index).padStart(2, '0')}`)
    const adapterSeed = seed + 1 + index
    once(dir, `${shape} rank ${rank} seed ${adapterSeed}`, () => writeAdapter(dir, SHAPES[shape], rank, adapterSeed))
    return dir
  })
}

/** The stamp is written last: a folder without it, or with another, is made anew. */
function once(dir: string, stamp: string, write: () => void): void {
  const stampFile = join(dir, '.stamp')
  if (existsSync(stampFile) && readFileSync(stampFile, 'utf8') === stamp) return
  mkdirSync(dir, { recursive: true })
  write()
  writeFileSync(stampFile, stamp)
}

function writeModel(dir: string, shape: LlamaShape, seed: number): void {
  const config = {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    hidden_size: shape.hiddenSize,
    intermediate_size: shape.intermediateSize,
    num_hidden_layers: shape.numLayers,
    num_attention_heads: shape.numHeads,
    num_key_value_heads: shape.numKvHeads,
    head_dim: shape.headDim,
    vocab_size: shape.vocabSize,
    max_position_embeddings: shape.maxPositions,
    rms_norm_eps: NORM_EPS,
    rope_theta: ROPE_THETA,
    rope_scaling: null,
    hidden_act: 'silu',
    attention_bias: false,
    mlp_bias: false,
    tie_word_embeddings: true,
    bos_token_id: 1,
    eos_token_id: 2,
    torch_dtype: 'float32',
  }
  writeFileSync(join(dir, 'config.json'), `${JSON.stringify(config, null, 1)}\n`)

  const tensors: TensorShape[] = [{ name: 'model.embed_tokens.weight', shape: [shape.vocabSize, shape.hiddenSize] }]
  for (let layer = 0; layer < shape.numLayers; layer++) {
    const prefix = `model.layers.${layer}`
    tensors.push({ name: `${prefix}.input_layernorm.weight`, shape: [shape.hiddenSize] })
    tensors.push({ name: `${prefix}.post_attention_layernorm.weight`, shape: [shape.hiddenSize] })
    for (const linear of layerLinears(shape)) {
      tensors.push({ name: `${prefix}.${linear.path}.weight`, shape: [linear.out, linear.in] })
    }
  }
  tensors.push({ name: 'model.norm.weight', shape: [shape.hiddenSize] })

  const fillRandom = randomFiller(seed)
  writeSafetensors(join(dir, 'model.safetensors'), tensors, (name, values) => {
    if (name.endsWith('norm.weight')) values.fill(1)
    else fillRandom(values, name.includes('embed_tokens') ? EMBED_STD : LAYER_STD)
  })
}

function writeAdapter(dir: string, shape: LlamaShape, rank: number, seed: number): void {
  const config = {
    base_model_name_or_path: 'random-llama',
    bias: 'none',
    fan_in_fan_out: false,
    inference_mode: true,
    lora_alpha: 2 * rank,
    lora_dropout: 0,
    modules_to_save: null,
    peft_type: 'LORA',
    r: rank,
    target_modules: layerLinears(shape).map((linear) => linear.path.split('.').at(-1)),
    task_type: 'CAUSAL_LM',
    use_dora: false,
    use_rslora: false,
  }
  writeFileSync(join(dir, 'adapter_config.json'), `${JSON.stringify(config, null, 1)}\n`)

  const tensors: TensorShape[] = []
  for (let layer = 0; layer < shape.numLayers; layer++) {
    for (const linear of layerLinears(shape)) {
      const prefix = `base_model.model.model.layers.${layer}.${linear.path}`
      tensors.push({ name: `${prefix}.lora_A.weight`, shape: [rank, linear.in] })
      tensors.push({ name: `${prefix}.lora_B.weight`, shape: [linear.out, rank] })
    }
  }
  const fillRandom = randomFiller(seed)
  writeSafetensors(join(dir, 'adapter_model.safetensors'), tensors, (name, values) =>
    fillRandom(values, name.endsWith('lora_A.weight') ? LORA_A_STD : LORA_B_STD),
  )
}

/** Uniform values of the given standard deviation from xorshift32 (Marsaglia, 2003): 135M of them take about a second. */
function randomFiller(seed: number): (out: Float32Array, std: number) => void {
  // Small seeds start xorshift with many zero bits; a multiplicative hash spreads them, and the state must not be 0.
  let state = Math.imul(seed + 1, 0x9e3779b1) | 0 || 1
  return (out, std) => {
    const scale = (std * Math.sqrt(3)) / 2 ** 31
    for (let i = 0; i < out.length; i++) {
      state ^= state << 13
      state ^= state >>> 17
      state ^= state << 5
      out[i] = state * scale
    }
  }
}

function main(): void {
  const { values } = parseArgs({
    options: {
      out: { type: 'string' },
      shape: { type: 'string', default: 'smollm-135m' },
      adapters: { type: 'string', default: '16' },
      rank: { type: 'string', default: '16' },
      seed: { type: 'string', default: '0' },
    },
  })
  const shape = (Object.keys(SHAPES) as ShapeName[]).find((name) => name === values.shape)
  if (shape === undefined) {
    throw new LorikeetError('CONFIG_INVALID', { option: '--shape', reason: `give one of ${Object.keys(SHAPES).join(', ')}` })
  }
  const options = { out: values.out ?? join('.cache', 'bench', shape), shape, seed: Number(values.seed) }
  const modelDir = ensureRandomModel(options)
  const adapterDirs = ensureRandomAdapters({ ...options, numAdapters: Number(values.adapters), rank: Number(values.rank) })
  console.log(JSON.stringify({ modelDir, adapterDirs }, null, 2))
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) main()
