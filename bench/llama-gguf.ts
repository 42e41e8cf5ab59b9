// A Hugging Face Llama directory and its LoRA adapters as GGUF, float32, the same numbers in the order llama.cpp wants them.

import { readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { LorikeetError } from '../src/errors.ts'
import { openSafetensors, readTensorF32, type SafetensorsFile } from '../src/model/safetensors.ts'
import { f32, type GgufValue, str, u32, writeGguf } from './gguf-writer.ts'
import type { TensorShape } from './safetensors-writer.ts'

interface LlamaConfig {
  readonly hidden_size: number
  readonly intermediate_size: number
  readonly num_hidden_layers: number
  readonly num_attention_heads: number
  readonly num_key_value_heads: number
  readonly head_dim: number
  readonly vocab_size: number
  readonly max_position_embeddings: number
  readonly rms_norm_eps: number
  readonly rope_theta: number
}

/** HF module -> GGUF tensor, inside a layer. */
const LAYER_NAMES: Readonly<Record<string, string>> = {
  input_layernorm: 'attn_norm',
  'self_attn.q_proj': 'attn_q',
  'self_attn.k_proj': 'attn_k',
  'self_attn.v_proj': 'attn_v',
  'self_attn.o_proj': 'attn_output',
  post_attention_layernorm: 'ffn_norm',
  'mlp.gate_proj': 'ffn_gate',
  'mlp.up_proj': 'ffn_up',
  'mlp.down_proj': 'ffn_down',
}

const TOP_NAMES: Readonly<Record<string, string>> = {
  'model.embed_tokens': 'token_embd',
  'model.norm': 'output_norm',
  lm_head: 'output',
}

/** Writes the base model. Prompts go in as token ids, so the vocabulary is declared by size only. */
export function convertModel(modelDir: string, out: string): void {
  const config = readConfig(modelDir)
  const source = openSafetensors(join(modelDir, 'model.safetensors'))
  const keys = new Map<string, GgufValue>([
    ['general.architecture', str('llama')],
    ['general.name', str(basename(modelDir))],
    ['general.file_type', u32(0)],
    ['llama.vocab_size', u32(config.vocab_size)],
    ['llama.context_length', u32(config.max_position_embeddings)],
    ['llama.embedding_length', u32(config.hidden_size)],
    ['llama.block_count', u32(config.num_hidden_layers)],
    ['llama.feed_forward_length', u32(config.intermediate_size)],
    ['llama.attention.head_count', u32(config.num_attention_heads)],
    ['llama.attention.head_count_kv', u32(config.num_key_value_heads)],
    ['llama.attention.key_length', u32(config.head_dim)],
    ['llama.attention.value_length', u32(config.head_dim)],
    ['llama.attention.layer_norm_rms_epsilon', f32(config.rms_norm_eps)],
    ['llama.rope.dimension_count', u32(config.head_dim)],
    ['llama.rope.freq_base', f32(config.rope_theta)],
    ['tokenizer.ggml.model', str('no_vocab')],
  ])
  writeConverted(out, keys, source, config, (name) => `${ggufModule(name.replace(/\.weight$/, ''))}.weight`)
}

/** Writes one rank-r adapter; llama.cpp computes the scale as alpha / r, like PEFT. */
export function convertAdapter(modelDir: string, adapterDir: string, out: string): void {
  const { lora_alpha: alpha } = JSON.parse(readFileSync(join(adapterDir, 'adapter_config.json'), 'utf8')) as {
    lora_alpha: number
  }
  const source = openSafetensors(join(adapterDir, 'adapter_model.safetensors'))
  const keys = new Map<string, GgufValue>([
    ['general.architecture', str('llama')],
    ['general.type', str('adapter')],
    ['adapter.type', str('lora')],
    ['adapter.lora.alpha', f32(alpha)],
  ])
  writeConverted(out, keys, source, readConfig(modelDir), (name) => {
    const [, path = '', side = ''] = /^base_model\.model\.(.+)\.lora_([AB])\.weight$/.exec(name) ?? []
    return `${ggufModule(path)}.weight.lora_${side.toLowerCase()}`
  })
}

function writeConverted(
  out: string,
  keys: ReadonlyMap<string, GgufValue>,
  source: SafetensorsFile,
  config: LlamaConfig,
  rename: (name: string) => string,
): void {
  const entries = new Map([...source.tensors.values()].map((entry) => [rename(entry.name), entry]))
  const tensors: TensorShape[] = [...entries].map(([name, { shape }]) => ({ name, shape }))
  writeGguf(out, keys, tensors, (name) => {
    const entry = entries.get(name)
    if (entry === undefined) throw new LorikeetError('INTERNAL', { detail: `no tensor ${name}` })
    const values = readTensorF32(entry)
    const numHeads = rotatedHeads(name, config)
    return numHeads === null ? values : interleaveHalves(values, numHeads, entry.shape)
  })
}

/** Heads of a tensor whose output rows are rotated, or null: LoRA's A has no output rows. */
function rotatedHeads(name: string, config: LlamaConfig): number | null {
  if (name.endsWith('.lora_a')) return null
  if (name.includes('.attn_q.')) return config.num_attention_heads
  if (name.includes('.attn_k.')) return config.num_key_value_heads
  return null
}

/**
 * llama.cpp's Llama rotates neighbouring rows (2i, 2i + 1) of a head, HF rotates (i, i + headDim / 2): rows move accordingly.
 * `shape` is [numHeads · headDim, columns].
 */
export function interleaveHalves(values: Float32Array, numHeads: number, shape: readonly number[]): Float32Array {
  const [rows = 0, columns = 0] = shape
  const headDim = rows / numHeads
  const half = headDim / 2
  const out = new Float32Array(values.length)
  for (let head = 0; head < numHeads; head++) {
    for (let i = 0; i < headDim; i++) {
      const from = head * headDim + (i % 2) * half + Math.floor(i / 2)
      const to = head * headDim + i
      out.set(values.subarray(from * columns, (from + 1) * columns), to * columns)
    }
  }
  return out
}

function ggufModule(path: string): string {
  const [, layer, module] = /^model\.layers\.(\d+)\.(.+)$/.exec(path) ?? []
  const name = module === undefined ? TOP_NAMES[path] : LAYER_NAMES[module]
  if (name === undefined) throw new LorikeetError('MODEL_INVALID', { reason: `${path} has no place in a GGUF Llama` })
  return layer === undefined ? name : `blk.${layer}.${name}`
}

function readConfig(modelDir: string): LlamaConfig {
  return JSON.parse(readFileSync(join(modelDir, 'config.json'), 'utf8')) as LlamaConfig
}
