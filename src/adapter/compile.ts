// An adapter directory to a CompiledAdapter. Synchronous and slow (disk, norms over base weights): loader thread only.

import { statSync } from 'node:fs'
import type { AdapterId } from '../core/ids.ts'
import { LorikeetError } from '../errors.ts'
import type { ModelSource } from '../model/model-source.ts'
import { digestOf, kvDigestOf, type Sites } from './digest.ts'
import { compileAdapterHub } from './formats/adapterhub/compile-adapterhub.ts'
import type { CompiledSites } from './formats/compiled-sites.ts'
import { compileDelta } from './formats/delta/compile-delta.ts'
import { type AdapterDirectory, detectAdapter } from './formats/detect.ts'
import { compileNative } from './formats/native/compile-native.ts'
import { compilePeft } from './formats/peft/compile-peft.ts'
import { refuserOf } from './formats/peft/refuse.ts'
import type { CompiledAdapter } from './primitive.ts'
import { arraysOf } from './primitive-arrays.ts'
import { promptCouplingOf } from './prompt-coupling-of.ts'

export interface CompileResult {
  readonly adapter: CompiledAdapter
  /** For the log: doubts about a file that is served all the same. */
  readonly warnings: readonly string[]
}

/**
 * Reads, validates and compiles an adapter for this base model.
 * Throws ADAPTER_NOT_FOUND, ADAPTER_REFUSED (its `field` names the config key or tensor) or SAFETENSORS_INVALID.
 */
export function compileAdapter(dir: string, model: ModelSource, id: AdapterId, name: string): CompileResult {
  if (!(statSync(dir, { throwIfNoEntry: false })?.isDirectory() ?? false)) {
    throw new LorikeetError('ADAPTER_NOT_FOUND', { name, path: dir })
  }
  const { warnings, ...compiled } = compileDirectory(detectAdapter(dir, name), model, name)
  const { sites, invocationTokenIds, virtualTokens } = compiled
  const adapter: CompiledAdapter = {
    id,
    name,
    ...compiled,
    promptCoupling: promptCouplingOf(sites, virtualTokens),
    digest: digestOf(sites, invocationTokenIds, virtualTokens),
    kvDigest: kvDigestOf(sites, model.spec.numLayers, virtualTokens),
    maxRank: maxRankOf(sites),
    numBytes: buffersOf({ sites, virtualTokens }).reduce((total, buffer) => total + buffer.byteLength, 0),
  }
  return { adapter, warnings }
}

function compileDirectory(directory: AdapterDirectory, model: ModelSource, name: string): CompiledSites {
  switch (directory.format) {
    case 'peft':
      return compilePeft(directory, model, name)
    case 'adapterhub':
      return compileAdapterHub(directory.setup, model, refuserOf(name))
    case 'delta':
      return compileDelta(directory, model, refuserOf(name))
    case 'native':
      return compileNative(directory, model, refuserOf(name))
  }
}

/** Every buffer of the adapter once: fused modules share an A, and slices of one B share its buffer. */
export function buffersOf({ sites, virtualTokens }: Pick<CompiledAdapter, 'sites' | 'virtualTokens'>): ArrayBuffer[] {
  const buffers = new Set<ArrayBuffer>()
  for (const part of [virtualTokens, ...sites.values()]) {
    for (const array of arraysOf(part)) buffers.add(array.buffer as ArrayBuffer)
  }
  return [...buffers]
}

function maxRankOf(sites: Sites): number {
  let maxRank = 0
  for (const primitives of sites.values()) {
    for (const primitive of primitives) if ('rank' in primitive) maxRank = Math.max(maxRank, primitive.rank)
  }
  return maxRank
}
