// Tests on a GPU: skipped with the reason where there is none.

import { createCudaBackend } from '../../src/backend/cuda/cuda-backend.ts'
import { Device } from '../../src/backend/cuda/device.ts'
import type { CudaDtype } from '../../src/backend/cuda/dtype.ts'
import { KernelModule } from '../../src/backend/cuda/module.ts'
import type { ContractSubject } from './contract.ts'

/** Why GPU tests cannot run here; null when they can. Printed once. */
export const GPU_PROBLEM: string | null = findProblem()

function findProblem(): string | null {
  try {
    const device = Device.open()
    KernelModule.load(device)[Symbol.dispose]()
    device[Symbol.dispose]()
    return null
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    console.log(`GPU tests are skipped: ${reason}`)
    return reason
  }
}

/** Mixtures of experts are not served on the GPU. */
const REFUSED_MODELS = ['mixtral', 'qwen3moe']

export function cudaSubject(dtype: CudaDtype, options: { readonly usesGraphs?: boolean } = {}): ContractSubject {
  return {
    name: `cuda in ${dtype}${options.usesGraphs === false ? ' without graphs' : ''}`,
    create: ({ model, blockSize, numBlocks, adapterBytes }) =>
      createCudaBackend({ model, blockSize, kvCache: { numBlocks }, adapterBytes, dtype, ...options }),
    refusedModels: REFUSED_MODELS,
    mayRefuseAdapters: true,
    ...(dtype === 'float32' ? {} : { relativeError: RELATIVE_ERROR[dtype] }),
  }
}

/**
 * Of a row of logits against float32 with unrounded weights. Rounding the weights of the golden models to bf16, and nothing
 * else, moves rows by up to 3.3 %; activations are rounded as often.
 */
const RELATIVE_ERROR = { float16: 0.02, bfloat16: 0.08 } as const
