// The one switch over backends. Each is imported only when chosen, so that a machine without its libraries never loads them.

import type { Config } from '../config.ts'
import { LorikeetError } from '../errors.ts'
import type { ModelSource } from '../model/model-source.ts'
import type { Backend } from './backend.ts'
import { chooseNumBlocks } from './kv-budget.ts'

export interface CreateBackendOptions {
  readonly config: Config
  readonly model: ModelSource
  /** Tokens the longest sequence may have. */
  readonly maxModelLen: number
  /** Called with float32 bytes read so far. */
  readonly onProgress: (loadedBytes: number) => void
}

/** Throws CONFIG_INVALID, BACKEND_UNAVAILABLE, or what reading the weights throws. */
export async function createBackend(options: CreateBackendOptions): Promise<Backend> {
  const { config, model, onProgress } = options
  const { blockSize } = config.scheduler
  const adapterBytes = config.adapters.deviceBytes
  if (config.model.backend === 'cuda') return createCuda(options)
  const numBlocks = chooseNumBlocks({ scheduler: config.scheduler, model, maxModelLen: options.maxModelLen })
  switch (config.model.backend) {
    case 'null': {
      const { createNullBackend } = await import('./null/null-backend.ts')
      return createNullBackend({ vocabSize: model.spec.vocabSize, blockSize, numBlocks, adapterBytes, stepDelayMs: 0 })
    }
    case 'reference': {
      refuseDtype(config, 'reference')
      const { createReferenceBackend } = await import('./reference/reference-backend.ts')
      return createReferenceBackend({ model, blockSize, kvCache: { numBlocks }, adapterBytes, onProgress })
    }
    case 'onnx': {
      refuseDtype(config, 'onnx')
      const { createOnnxBackend } = await import('./onnx/onnx-backend.ts')
      const { numThreads } = config.model
      return createOnnxBackend({ model, blockSize, kvCache: { numBlocks }, adapterBytes, numThreads, onProgress })
    }
  }
}

/** The KV cache takes what weights and adapters leave of the device's memory, unless told how much. */
async function createCuda({ config, model, maxModelLen, onProgress }: CreateBackendOptions): Promise<Backend> {
  const { createCudaBackend } = await import('./cuda/cuda-backend.ts')
  const { blockSize, kvCacheBytes, maxNumBatchedTokens, maxNumSeqs } = config.scheduler
  return createCudaBackend({
    model,
    blockSize,
    kvCache: kvCacheBytes === null ? null : { numBytes: kvCacheBytes },
    adapterBytes: config.adapters.deviceBytes,
    dtype: config.model.dtype,
    maxModelLen,
    maxNumBatchedTokens,
    maxNumSeqs,
    onProgress,
  })
}

function refuseDtype(config: Config, backend: string): void {
  const { dtype } = config.model
  if (dtype === 'auto' || dtype === 'float32') return
  throw new LorikeetError('CONFIG_INVALID', {
    option: '--dtype',
    reason: `the ${backend} backend computes in float32, not ${dtype}`,
  })
}
