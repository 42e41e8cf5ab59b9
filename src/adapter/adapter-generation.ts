// One immutable generation of one adapter as the store knows it. What is derivable is a function, not a field.

import type { AdapterId, AdapterSlot } from '../core/ids.ts'
import type { PromptCoupling } from '../core/prompt-coupling.ts'
import type { LorikeetError } from '../errors.ts'
import type { CompiledAdapter } from './primitive.ts'
import type { VirtualTokenCounts } from './virtual-tokens.ts'

/** On disk only; in host memory; on the device; on the device and in use by a running request. */
export type AdapterState = 'registered' | 'loaded' | 'active' | 'pinned'

export interface AdapterSource {
  readonly name: string
  /** Resolved directory on disk; '' for a mixture. */
  readonly path: string
  /** Adapters this one is the weighted sum of. */
  readonly members?: readonly AdapterMember[]
}

export interface AdapterMember {
  readonly path: string
  readonly weight: number
  /** Of the weights when the member was loaded: other files must not take its place. */
  readonly digest: string
}

/** Something that happened to an adapter's weights, for metrics. */
export interface AdapterActivity {
  readonly name: string
  readonly tier: 'host' | 'device'
  /** A load into the tier, or an eviction from it to make room. */
  readonly type: 'load' | 'failed-load' | 'eviction'
  /** Milliseconds; 0 for evictions. */
  readonly durationMs: number
}

/** A row of the listing. */
export interface AdapterInfo {
  readonly id: AdapterId
  readonly name: string
  readonly path: string
  readonly kind: string
  readonly digest: string
  readonly maxRank: number
  /** Tokens of the context that each of its requests spends on the adapter's own. */
  readonly numVirtualTokens: number
  readonly numBytes: number
  /** Bytes in host memory now. */
  readonly hostBytes: number
  /** Bytes on the device now. */
  readonly deviceBytes: number
  /** Epoch milliseconds. */
  readonly loadedAtMs: number
  readonly state: AdapterState
  /** Being read from disk once more. */
  readonly isLoading: boolean
  /** Made of others for a request, and not listed. */
  readonly isMixture: boolean
}

/** Stays known after the weights are evicted. */
export interface AdapterTraits extends VirtualTokenCounts {
  readonly kvDigest: string
  readonly invocationTokenIds: readonly number[] | null
  readonly promptCoupling: PromptCoupling
}

export interface Generation {
  readonly id: AdapterId
  readonly source: AdapterSource
  readonly kind: string
  readonly digest: string
  readonly traits: AdapterTraits
  readonly maxRank: number
  /** Bytes in host memory. */
  readonly numBytes: number
  /** Bytes on the device. */
  readonly deviceBytes: number
  readonly loadedAtMs: number
  /** Weights in host memory; null = on disk only, or on the device without a host copy. */
  host: CompiledAdapter | null
  adapterSlot: AdapterSlot | null
  /** When it got the slot; epoch milliseconds. */
  activatedAtMs: number
  /** The weights are all in the slot. */
  isCopied: boolean
  /** Running requests; > 0 keeps the slot. */
  numPins: number
  /** Requests, waiting or running, that name this generation; > 0 keeps it alive after it left the list. */
  numHolders: number
  isListed: boolean
  /** Why the last reload or activation failed. */
  failure: LorikeetError | null
  /** Tick of the last use, for eviction. */
  lastUsed: number
}

function stateOf(generation: Generation): AdapterState {
  if (generation.adapterSlot !== null) return generation.numPins > 0 ? 'pinned' : 'active'
  return generation.host === null ? 'registered' : 'loaded'
}

export function infoOf(generation: Generation, isLoading: boolean): AdapterInfo {
  const { id, source, kind, digest, traits, maxRank, numBytes, loadedAtMs } = generation
  return {
    id,
    name: source.name,
    path: source.path,
    isMixture: source.members !== undefined,
    kind,
    digest,
    maxRank,
    numVirtualTokens: traits.numVirtualTokens,
    numBytes,
    hostBytes: generation.host === null ? 0 : numBytes,
    deviceBytes: generation.adapterSlot === null ? 0 : generation.deviceBytes,
    loadedAtMs,
    state: stateOf(generation),
    isLoading,
  }
}

/** The least recently used of those, or null. */
export function leastRecentlyUsed(generations: Iterable<Generation>): Generation | null {
  let oldest: Generation | null = null
  for (const generation of generations) if (oldest === null || generation.lastUsed < oldest.lastUsed) oldest = generation
  return oldest
}
