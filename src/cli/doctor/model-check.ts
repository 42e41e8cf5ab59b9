import type { Config } from '../../config.ts'
import { asLorikeetError } from '../../errors.ts'
import { openModel } from '../../model/open-model.ts'

export interface ModelCheck {
  readonly path: string
  readonly runs: boolean
  /** Why it cannot be served; null when it can. */
  readonly problem: string | null
  readonly facts: ModelFacts | null
}

export interface ModelFacts {
  readonly modelType: string
  readonly dtype: string
  readonly numParameters: number
  readonly weightBytes: number
  readonly maxModelLen: number
  /** Keys and values of one token over all layers, as the CPU backends keep them. */
  readonly kvBytesPerToken: number
  /** Tokens the KV cache would hold in `kvBudgetBytes`. */
  readonly kvTokens: number
  readonly kvBudgetBytes: number
}

/** The CPU backends compute and cache in float32. */
const KV_ELEMENT_BYTES = 4
const BYTES_PER_WEIGHT: Readonly<Record<string, number>> = { F32: 4, F16: 2, BF16: 2 }

/** Reads the headers of a model directory, no weight, and estimates what its KV cache needs. */
export function checkModel(config: Config, freeBytes: number): ModelCheck {
  const { path } = config.model
  try {
    const { spec, dtype, totalBytes } = openModel(path)
    const numParameters = Math.round(totalBytes / (BYTES_PER_WEIGHT[dtype] ?? KV_ELEMENT_BYTES))
    const kvBytesPerToken = 2 * spec.numLayers * spec.numKvHeads * spec.headDim * KV_ELEMENT_BYTES
    const kvBudgetBytes = config.scheduler.kvCacheBytes ?? Math.max(0, freeBytes - numParameters * KV_ELEMENT_BYTES)
    const facts: ModelFacts = {
      modelType: spec.modelType,
      dtype,
      numParameters,
      weightBytes: totalBytes,
      maxModelLen: config.model.maxModelLen ?? spec.maxPositions,
      kvBytesPerToken,
      kvTokens: Math.floor(kvBudgetBytes / kvBytesPerToken),
      kvBudgetBytes,
    }
    const isTooLarge = facts.kvTokens < facts.maxModelLen
    const problem = isTooLarge ? 'memory does not hold the weights and the KV cache of one request of full length' : null
    return { path, runs: !isTooLarge, problem, facts }
  } catch (error) {
    return { path, runs: false, problem: asLorikeetError(error).message, facts: null }
  }
}
