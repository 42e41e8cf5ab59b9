// A model of Llama-3-8B's shape with random weights, and adapters for it, without 16 GB of files: every tensor reads the same
// bytes of one file, which lie apart once they are on the device.

import { closeSync, existsSync, openSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { CompiledAdapter, LowRank, Site } from '../../src/adapter/primitive.ts'
import { adapterId } from '../../src/core/ids.ts'
import { llama } from '../../src/model/architectures/llama.ts'
import { ConfigReader } from '../../src/model/config-reader.ts'
import type { TensorRef } from '../../src/model/decoder-spec.ts'
import type { ModelSource } from '../../src/model/model-source.ts'

const CONFIG = {
  model_type: 'llama',
  architectures: ['LlamaForCausalLM'],
  vocab_size: 128_256,
  hidden_size: 4096,
  intermediate_size: 14_336,
  num_hidden_layers: 32,
  num_attention_heads: 32,
  num_key_value_heads: 8,
  max_position_embeddings: 8192,
  hidden_act: 'silu',
  rms_norm_eps: 1e-5,
  rope_theta: 500_000,
  tie_word_embeddings: false,
  attention_bias: false,
  mlp_bias: false,
}

const BF16_BYTES = 2
const CHUNK_BYTES = 64 << 20

/** Weights uniform in ±0.035: the spread that keeps a row of 4,096 terms near one. */
const WEIGHT_SPREAD = 0.035

/** Writes the weight file, about 1 GB, to the temporary folder if it is not there. */
export function openLlama8b(numLayers = CONFIG.num_hidden_layers): ModelSource {
  const { spec, modules } = llama.describe(new ConfigReader({ ...CONFIG, num_hidden_layers: numLayers }))
  const file = join(tmpdir(), 'lorikeet-random-weights.bin')
  writeWeights(file, spec.vocabSize * spec.hiddenSize * BF16_BYTES)
  const parameters = new Map<string, TensorRef>()
  for (const module of modules) {
    if (module.kind === 'norm') continue
    for (const { site, rowStart, rowEnd } of module.parts) {
      const shape = [rowEnd - rowStart, module.inFeatures]
      parameters.set(site, { file, byteOffset: 0, dtype: 'BF16', shape, isTransposed: false, transposedRows: null })
    }
  }
  const refBytes = ({ shape }: TensorRef): number => shape.reduce((product, size) => product * size, BF16_BYTES)
  return {
    path: '(random, Llama-3-8B shape)',
    spec,
    modules: new Map(modules.map((module) => [module.path, module])),
    dtype: 'BF16',
    eosTokenIds: [],
    totalBytes: [...parameters.values()].reduce((sum, ref) => sum + refBytes(ref), 0),
    parameters,
    // Norms only: matrices go from the file to the device.
    read: () => new Float32Array(spec.hiddenSize).fill(1),
  }
}

/** LoRA on all seven linears. Adapters of one rank share host arrays, and nothing on the device. */
export function createAdapters(model: ModelSource, count: number, rank: number): readonly CompiledAdapter[] {
  const random = createRandom(rank)
  const arrays = new Map<number, Float32Array>()
  const arrayOf = (length: number): Float32Array => {
    const known = arrays.get(length)
    if (known !== undefined) return known
    const values = Float32Array.from({ length }, () => (random() * 2 - 1) * WEIGHT_SPREAD)
    arrays.set(length, values)
    return values
  }
  const sites = new Map<Site, readonly LowRank[]>()
  let numBytes = 0
  for (const module of model.modules.values()) {
    if (module.kind !== 'linear') continue
    for (const { site, rowStart, rowEnd } of module.parts) {
      const a = arrayOf(rank * module.inFeatures)
      const b = arrayOf((rowEnd - rowStart) * rank)
      sites.set(site as Site, [{ kind: 'low-rank', rank, a, b, scale: 1, biasB: null }])
      numBytes += (a.length + b.length) * BF16_BYTES
    }
  }
  return Array.from({ length: count }, (_, i) => ({
    id: adapterId(i + 1),
    name: `lora-${i}`,
    kind: 'LORA',
    digest: String(i),
    kvDigest: String(i),
    maxRank: rank,
    numBytes,
    sites,
    virtualTokens: null,
    promptCoupling: 'none',
    invocationTokenIds: null,
  }))
}

/** Bits of bf16 values in ±WEIGHT_SPREAD. */
function writeWeights(path: string, numBytes: number): void {
  if (existsSync(path)) return
  const random = createRandom(1)
  const values = Float32Array.from({ length: CHUNK_BYTES / BF16_BYTES }, () => (random() * 2 - 1) * WEIGHT_SPREAD)
  const words = new Uint32Array(values.buffer)
  const bits = Uint16Array.from(words, (word) => word >>> 16)
  const file = openSync(path, 'w')
  for (let written = 0; written < numBytes; ) written += writeSync(file, bits, 0, Math.min(CHUNK_BYTES, numBytes - written))
  closeSync(file)
}

/** xorshift32: quick enough for tens of millions of values. Values in [0, 1). */
export function createRandom(seed: number): () => number {
  let state = seed | 1
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) / 2 ** 32
  }
}
