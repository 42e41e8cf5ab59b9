// How large the KV cache of a CPU backend becomes; the doctor asks here too.

import { freemem } from 'node:os'
import type { SchedulerConfig } from '../config.ts'
import { LorikeetError } from '../errors.ts'
import type { DecoderSpec } from '../model/decoder-spec.ts'
import type { ModelSource } from '../model/model-source.ts'

/** Share of the free memory the KV cache may take unasked; weights, adapters and the client's own work need the rest. */
const DEFAULT_KV_MEMORY_SHARE = 0.25

/** Past this a CPU is bound by compute long before it runs out of cache. */
const DEFAULT_KV_MAX_BYTES = 4 * 1024 ** 3

/** Keys and values of CPU backends are float32. */
const KV_ELEMENT_BYTES = 4

/** Bytes of keys and values of one token over all layers, in float32. */
export function kvBytesPerToken(spec: DecoderSpec): number {
  return 2 * spec.numLayers * spec.numKvHeads * spec.headDim * KV_ELEMENT_BYTES
}

export interface KvBudgetOptions {
  readonly scheduler: SchedulerConfig
  readonly model: ModelSource
  /** Tokens the longest sequence may have. */
  readonly maxModelLen: number
}

/** As many blocks as were asked for, or as every sequence at full length could use, within a share of the free memory. Throws CONFIG_INVALID. */
export function chooseNumBlocks({ scheduler, model, maxModelLen }: KvBudgetOptions): number {
  const { blockSize, kvCacheBytes, maxNumSeqs } = scheduler
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
