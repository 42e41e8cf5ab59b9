// The one switch over backends. Each is imported only when chosen, so that a machine without its libraries never loads them.

import { freemem } from 'node:os'
import type { Config } from '../config.ts'
import { LorikeetError } from '../errors.ts'
import type { DecoderSpec } from '../model/decoder-spec.ts'
import type { ModelSource } from '../model/model-source.ts'
import type { Backend } from './backend.ts'

export interface CreateBackendOptions {
  readonly config: Config
  readonly model: ModelSource
  /** Tokens the longest sequence may have. */
  readonly maxModelLen: number
  readonly onProgress: (loadedBytes: number) => void
}

/** Share of the free memory the KV cache may take unasked; weights, adapters and the client's own work need the rest. */
const DEFAULT_KV_MEMORY_SHARE = 0.25

/** Past this a CPU is bound by compute long before it runs out of cache. */
const DEFAULT_KV_MAX_BYTES = 4 * 1024 ** 3

/** Keys and values of CPU backends are float32. */
const KV_ELEMENT_BYTES = 4

/** Throws CONFIG_INVALID, BACKEND_UNAVAILABLE, or what reading the weights throws. */
export async function createBackend(options: CreateBackendOptions): Promise<Backend> {
  const { config, model, onProgress } = options
  const { blockSize } = config.scheduler
  const adapterBytes = config.adapters.deviceBytes
  const numBlocks = chooseNumBlocks(options)
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
    case 'onnx':
      throw new LorikeetError('BACKEND_UNAVAILABLE', { backend: 'onnx', reason: 'this build does not contain it' })
    case 'cuda':
      throw new LorikeetError('BACKEND_UNAVAILABLE', {
        backend: 'cuda',
        reason: 'this build does not contain it; use --backend onnx',
      })
  }
}

/** Bytes of keys and values of one token over all layers, in float32. */
export function kvBytesPerToken(spec: DecoderSpec): number {
  return 2 * spec.numLayers * spec.numKvHeads * spec.headDim * KV_ELEMENT_BYTES
}

/** As many blocks as were asked for, or as every sequence at full length could use, within a share of the free memory. */
function chooseNumBlocks({ config, model, maxModelLen }: CreateBackendOptions): number {
  const { blockSize, kvCacheBytes, maxNumSeqs } = config.scheduler
  const bytesPerBlock = kvBytesPerToken(model.spec) * blockSize
  if (kvCacheBytes !== null) {
    const numBlocks = Math.floor(kvCacheBytes / bytesPerBlock)
    if (numBlocks >= 1) return numBlocks
    const reason = `one block of ${blockSize} tokens takes ${bytesPerBlock} bytes of this model`
    throw new LorikeetError('CONFIG_INVALID', { option: '--kv-cache-bytes', reason })
  }
  const blocksPerSeq = Math.ceil(maxModelLen / blockSize)
  const freeBytes = Math.max(0, freeMemoryBytes() - model.totalBytes)
  const budget = Math.min(freeBytes * DEFAULT_KV_MEMORY_SHARE, DEFAULT_KV_MAX_BYTES)
  return Math.max(1, Math.min(maxNumSeqs * blocksPerSeq, Math.floor(budget / bytesPerBlock)))
}

/** What this process may still allocate: a container's limit counts, where Node (20.13 and later) knows it. */
function freeMemoryBytes(): number {
  return typeof process.availableMemory === 'function' ? process.availableMemory() : freemem()
}

function refuseDtype(config: Config, backend: string): void {
  const { dtype } = config.model
  if (dtype === 'auto' || dtype === 'float32') return
  throw new LorikeetError('CONFIG_INVALID', {
    option: '--dtype',
    reason: `the ${backend} backend computes in float32, not ${dtype}`,
  })
}
