import { chooseNumBlocks, kvBytesPerToken } from '../../backend/kv-budget.ts'
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
  /** As stored. */
  readonly weightBytes: number
  readonly maxModelLen: number
  readonly kvBytesPerToken: number
  /** Tokens that the KV cache of a server started now would hold. */
  readonly kvTokens: number
}

/** The CPU backends compute in float32, whatever the files hold. */
const COMPUTE_BYTES = 4
const STORED_BYTES: Readonly<Record<string, number>> = { F32: 4, F16: 2, BF16: 2 }

/** Reads the headers of a model directory, no weight, and says what a server would make of it. */
export function checkModel(config: Config, freeBytes: number): ModelCheck {
  const { path } = config.model
  try {
    const model = openModel(path)
    const { spec, dtype, totalBytes } = model
    const maxModelLen = Math.min(config.model.maxModelLen ?? spec.maxPositions, spec.maxPositions)
    const facts: ModelFacts = {
      modelType: spec.modelType,
      dtype,
      numParameters: Math.round(totalBytes / (STORED_BYTES[dtype] ?? COMPUTE_BYTES)),
      weightBytes: totalBytes,
      maxModelLen,
      kvBytesPerToken: kvBytesPerToken(spec),
      kvTokens: chooseNumBlocks({ scheduler: config.scheduler, model, maxModelLen }) * config.scheduler.blockSize,
    }
    const problem = problemOf(facts, freeBytes)
    return { path, runs: problem === null, problem, facts }
  } catch (error) {
    return { path, runs: false, problem: asLorikeetError(error).message, facts: null }
  }
}

function problemOf({ numParameters, kvTokens, maxModelLen }: ModelFacts, freeBytes: number): string | null {
  const needBytes = numParameters * COMPUTE_BYTES
  if (needBytes > freeBytes) return 'its weights in float32 do not fit the free memory'
  if (kvTokens >= maxModelLen) return null
  return `the KV cache would hold ${kvTokens} tokens and one request may have ${maxModelLen}; raise --kv-cache-bytes or lower --max-model-len`
}
