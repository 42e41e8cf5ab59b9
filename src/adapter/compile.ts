// An adapter directory to a CompiledAdapter. Synchronous and slow (disk, norms over base weights): loader thread only.

import { statSync } from 'node:fs'
import { basename } from 'node:path'
import type { AdapterId } from '../core/ids.ts'
import { LorikeetError } from '../errors.ts'
import type { ModelSource } from '../model/model-source.ts'
import { digestOf, kvDigestOf, type Sites } from './digest.ts'
import { compileAdapterHub } from './formats/adapterhub/compile-adapterhub.ts'
import type { CompiledSites } from './formats/compiled-sites.ts'
import { compileSft } from './formats/composable-sft/compile-sft.ts'
import { compileDelta } from './formats/delta/compile-delta.ts'
import { type AdapterDirectory, detectAdapter } from './formats/detect.ts'
import { type MixtureDirectory, readMixtureDirectory } from './formats/mixture/mixture-directory.ts'
import { compileNative } from './formats/native/compile-native.ts'
import { compileOpenDelta } from './formats/opendelta/compile-opendelta.ts'
import { compilePeft } from './formats/peft/compile-peft.ts'
import { refuserOf } from './formats/peft/refuse.ts'
import { compilePyreft } from './formats/pyreft/compile-pyreft.ts'
import { averageAdapters } from './mixture/average-adapters.ts'
import { baseParameters } from './mixture/base-parameters.ts'
import { sumAdapters } from './mixture/sum-adapters.ts'
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
  const mixture = readMixtureDirectory(dir, refuserOf(name))
  if (mixture !== null) return compileMixture(mixture, model, id, name)
  return finish(compileDirectory(detectAdapter(dir, name), model, name), model, id, name)
}

/**
 * Several adapters as one, with weights. `digest` of a member, where given, is what its files must still hold.
 * Throws what `compileAdapter` throws for a member, or ADAPTER_REFUSED where the members cannot be combined.
 */
export function compileMixture(
  { kind, combine, members }: Omit<MixtureDirectory, 'format'>,
  model: ModelSource,
  id: AdapterId,
  name: string,
): CompileResult {
  const warnings: string[] = []
  const weighted = members.map(({ path, weight, digest }) => {
    const member = compileAdapter(path, model, id, basename(path))
    if (digest !== undefined && member.adapter.digest !== digest) {
      const reason = 'its files changed since it was loaded; load it again'
      throw new LorikeetError('ADAPTER_REFUSED', { name, field: path, reason }, { field: path })
    }
    warnings.push(...member.warnings)
    return { adapter: member.adapter, weight }
  })
  const combined = combine === 'sum' ? sumAdapters(name, weighted, baseParameters(model)) : averageAdapters(name, weighted)
  return finish({ kind, ...combined, warnings }, model, id, name)
}

function finish({ warnings, ...compiled }: CompiledSites, model: ModelSource, id: AdapterId, name: string): CompileResult {
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
    case 'composable-sft':
      return compileSft(directory, model, refuserOf(name))
    case 'opendelta':
      return compileOpenDelta(directory, model, refuserOf(name))
    case 'pyreft':
      return compilePyreft(directory, model, refuserOf(name))
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
