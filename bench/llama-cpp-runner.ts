// Greedy generation with llama.cpp: one context, one sequence a prompt, every sequence's next token in one llama_decode.

import { at, invariant } from '../src/core/invariant.ts'
import { LorikeetError } from '../src/errors.ts'
import type { GenerationRun } from './generation-run.ts'
import {
  type AddonContext,
  type AddonLora,
  type AddonModel,
  type AddonSampler,
  KV_TYPES,
  type KvType,
  type LlamaCpp,
} from './llama-cpp-addon.ts'

export interface LlamaCppSettings {
  readonly numThreads: number
  /** Tokens of one prompt batch; llama.cpp's own default. */
  readonly batchSize: number
  readonly flashAttention: boolean
  readonly kvType: KvType
}

export class LlamaCppRunner {
  readonly #llama: LlamaCpp
  readonly #model: AddonModel
  readonly #settings: LlamaCppSettings

  private constructor(llama: LlamaCpp, model: AddonModel, settings: LlamaCppSettings) {
    this.#llama = llama
    this.#model = model
    this.#settings = settings
  }

  static async open(llama: LlamaCpp, modelFile: string, settings: LlamaCppSettings): Promise<LlamaCppRunner> {
    const model = new llama.addon.AddonModel(modelFile, { addonExports: llama.addon, gpuLayers: 0, useMmap: true })
    if (!(await model.init())) throw new LorikeetError('MODEL_INVALID', { reason: `llama.cpp does not load ${modelFile}` })
    return new LlamaCppRunner(llama, model, settings)
  }

  async loadLora(file: string): Promise<AddonLora> {
    const lora = new this.#llama.addon.AddonModelLora(this.#model, file)
    await this.#model.loadLora(lora)
    return lora
  }

  /** All prompts at once; each gets exactly `numOutputTokens` tokens. Prompts must be of one length. */
  async generate(
    prompts: readonly Int32Array[],
    numOutputTokens: number,
    lora: AddonLora | null = null,
    kvType: KvType = this.#settings.kvType,
  ): Promise<GenerationRun> {
    const context = await this.#openContext(prompts, numOutputTokens, kvType)
    const samplers = prompts.map(() => {
      const sampler = new this.#llama.addon.AddonSampler(this.#model)
      sampler.applyConfig({ temperature: 0 })
      return sampler
    })
    try {
      if (lora !== null) context.setLoras([lora], [1])
      return await decodeAll(context, samplers, prompts, numOutputTokens, this.#settings.batchSize)
    } finally {
      for (const sampler of samplers) sampler.dispose()
      await context.dispose()
    }
  }

  async dispose(): Promise<void> {
    await this.#model.dispose()
  }

  async #openContext(prompts: readonly Int32Array[], numOutputTokens: number, kvType: KvType): Promise<AddonContext> {
    const { numThreads, batchSize, flashAttention } = this.#settings
    const context = new this.#llama.addon.AddonContext(this.#model, {
      contextSize: prompts.length * (at(prompts, 0).length + numOutputTokens),
      batchSize,
      sequences: prompts.length,
      flashAttention,
      threads: numThreads,
      kvCacheKeyType: KV_TYPES[kvType],
      kvCacheValueType: KV_TYPES[kvType],
    })
    if (!(await context.init())) throw new LorikeetError('BACKEND_FAILED', { backend: 'llama.cpp', detail: 'no context' })
    return context
  }
}

async function decodeAll(
  context: AddonContext,
  samplers: readonly AddonSampler[],
  prompts: readonly Int32Array[],
  numOutputTokens: number,
  batchSize: number,
): Promise<GenerationRun> {
  const startMs = performance.now()
  const tokens = prompts.map(() => new Int32Array(numOutputTokens))
  const promptLength = at(prompts, 0).length
  let last = await prefill(context, samplers, prompts, batchSize)
  const decodeStartMs = performance.now()
  for (let index = 0; ; index++) {
    last.forEach((token, sequence) => {
      at(tokens, sequence)[index] = token
    })
    if (index === numOutputTokens - 1) break
    context.initBatch(prompts.length)
    const rows = last.map((token, sequence) => {
      const added = context.addToBatch(sequence, promptLength + index, Uint32Array.of(token), Uint32Array.of(0))
      return at(added, 0)
    })
    await context.decodeBatch()
    last = await sampleRows(context, samplers, rows)
  }
  const endMs = performance.now()
  return {
    tokens,
    totalMs: endMs - startMs,
    decodeMs: endMs - decodeStartMs,
    numDecodeTokens: prompts.length * (numOutputTokens - 1),
  }
}

/** Prompts in batches of whole prompts up to `batchSize` tokens; the first sampled token of each. */
async function prefill(
  context: AddonContext,
  samplers: readonly AddonSampler[],
  prompts: readonly Int32Array[],
  batchSize: number,
): Promise<number[]> {
  const promptLength = at(prompts, 0).length
  const numPerBatch = Math.floor(batchSize / promptLength)
  invariant(numPerBatch > 0, `a prompt of ${promptLength} tokens in batches of ${batchSize}`)
  const first: number[] = []
  for (let start = 0; start < prompts.length; start += numPerBatch) {
    const group = prompts.slice(start, start + numPerBatch)
    context.initBatch(group.length * promptLength)
    const rows = group.map((prompt, index) => {
      const added = context.addToBatch(start + index, 0, Uint32Array.from(prompt), Uint32Array.of(promptLength - 1))
      return at(added, 0)
    })
    await context.decodeBatch()
    first.push(...(await sampleRows(context, samplers.slice(start, start + numPerBatch), rows)))
  }
  return first
}

function sampleRows(context: AddonContext, samplers: readonly AddonSampler[], rows: readonly number[]): Promise<number[]> {
  return Promise.all(rows.map((row, index) => context.sampleToken(row, at(samplers, index))))
}
