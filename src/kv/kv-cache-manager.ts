// Gives sequences their blocks. Block tables only ever grow at the end, until `free` takes all of a sequence's blocks home.
//
//   block table   [ found in the prefix cache | full, registered | filling ]
//                                             ^ numRegisteredBlocks

import { blockId } from '../core/ids.ts'
import { invariant } from '../core/invariant.ts'
import type { PromptCoupling } from '../core/prompt-coupling.ts'
import { EMPTY_PREFIX_ID, hashSeed } from './block-hash.ts'
import type { BlockPool, BlockSeed } from './block-pool.ts'

/** What may share blocks with this sequence. */
export interface PrefixIdentity {
  /** Digest of the adapter weights that change keys or values; '' = none do, the base's blocks are shared. */
  readonly kvDigest: string
  /** First position the adapter acts on (activated LoRA); 0 = from the start. */
  readonly activationStart: number
  /** Leading tokens that are the adapter's own and not a client's. */
  readonly numVirtualTokens: number
  readonly promptCoupling: PromptCoupling
  readonly numPromptTokens: number
  /** Isolates tenants from each other; '' = shared. */
  readonly cacheSalt: string
}

/** One sequence's blocks. Written by KvCacheManager only. */
export class KvSequence {
  /** Ordered block ids; the first `numBlocks` are valid. */
  blockTable = new Int32Array(8)
  numBlocks = 0
  /** Leading blocks that are full and were offered to the prefix cache. */
  numRegisteredBlocks = 0
  /** Chain the registered blocks form. */
  prefixId = EMPTY_PREFIX_ID
  readonly activationStart: number
  readonly numVirtualTokens: number
  /** Leading tokens whose blocks others may use. */
  readonly maxSharedTokens: number
  readonly baseSeed: BlockSeed
  readonly adapterSeed: BlockSeed
  /** Of blocks that hold virtual tokens only: the same for every tenant. */
  readonly virtualSeed: BlockSeed

  constructor(identity: PrefixIdentity) {
    this.numVirtualTokens = identity.numVirtualTokens
    this.maxSharedTokens = identity.promptCoupling === 'whole' ? identity.numVirtualTokens : Number.POSITIVE_INFINITY
    this.baseSeed = seedOf(`\0${identity.cacheSalt}`)
    if (identity.kvDigest === '') {
      invariant(identity.numVirtualTokens === 0, 'virtual tokens change keys and values')
      this.activationStart = 0
      this.adapterSeed = this.baseSeed
      this.virtualSeed = this.baseSeed
      return
    }
    // The start is part of the seed: equal tokens with the adapter switched on elsewhere in the block have other keys.
    this.activationStart = identity.activationStart
    const length = identity.promptCoupling === 'length' ? `#${identity.numPromptTokens}` : ''
    this.adapterSeed = seedOf(`${identity.kvDigest}@${identity.activationStart}${length}\0${identity.cacheSalt}`)
    this.virtualSeed = identity.numVirtualTokens === 0 ? this.adapterSeed : seedOf(identity.kvDigest)
  }
}

function seedOf(text: string): BlockSeed {
  return { text, hash: hashSeed(text) }
}

export class KvCacheManager {
  readonly pool: BlockPool
  readonly #enablePrefixCaching: boolean
  readonly #sequences = new Set<KvSequence>()

  constructor(pool: BlockPool, enablePrefixCaching: boolean) {
    this.pool = pool
    this.#enablePrefixCaching = enablePrefixCaching
  }

  /** Leading tokens of the sequence in blocks that nothing but virtual tokens fills: what its adapter's sequences share. */
  numSharedVirtualTokens(sequence: KvSequence): number {
    const { blockSize } = this.pool
    return this.#enablePrefixCaching ? Math.floor(sequence.numVirtualTokens / blockSize) * blockSize : 0
  }

  numBlocksFor(numTokens: number): number {
    return Math.ceil(numTokens / this.pool.blockSize)
  }

  /** Blocks `tryGrow` could give now. */
  canAllocate(numBlocks: number): boolean {
    return numBlocks <= this.pool.numAvailable
  }

  /**
   * Fills an empty block table with the longest cached prefix of `tokens[0, numTokens)` and returns its length in tokens.
   * The last token is never taken from the cache: its logits are needed, and the cache holds none.
   */
  attachPrefix(sequence: KvSequence, tokens: Int32Array, numTokens: number): number {
    invariant(sequence.numBlocks === 0, 'a prefix is attached to an empty sequence only')
    if (!this.#enablePrefixCaching) return 0
    const { blockSize } = this.pool
    const maxBlocks = Math.floor(Math.min(numTokens - 1, sequence.maxSharedTokens) / blockSize)
    for (let index = 0; index < maxBlocks; index++) {
      const block = this.pool.find(sequence.prefixId, this.#seedOf(sequence, index), tokens, index * blockSize)
      if (block === null) break
      this.pool.acquire(block)
      this.#append(sequence, block)
      sequence.prefixId = this.pool.prefixIdOf(block)
      sequence.numRegisteredBlocks++
    }
    return sequence.numBlocks * blockSize
  }

  /** Extends the block table to hold `numTokens`; false, and nothing changed, when the pool has no room. */
  tryGrow(sequence: KvSequence, numTokens: number): boolean {
    const numNew = this.numBlocksFor(numTokens) - sequence.numBlocks
    if (numNew <= 0) return true
    if (!this.canAllocate(numNew)) return false
    for (let i = 0; i < numNew; i++) {
      const block = this.pool.tryAllocate()
      invariant(block !== null, 'the pool has fewer blocks than it counted')
      this.#append(sequence, block)
    }
    return true
  }

  /** Offers the blocks that `numComputedTokens` filled to the prefix cache. Call once their keys and values are written. */
  commit(sequence: KvSequence, tokens: Int32Array, numComputedTokens: number): void {
    if (!this.#enablePrefixCaching) return
    const { blockSize } = this.pool
    const numFull = Math.floor(Math.min(numComputedTokens, sequence.maxSharedTokens) / blockSize)
    while (sequence.numRegisteredBlocks < numFull) {
      const index = sequence.numRegisteredBlocks++
      const block = blockId(sequence.blockTable[index] as number)
      const seed = this.#seedOf(sequence, index)
      sequence.prefixId = this.pool.register(block, sequence.prefixId, seed, tokens, index * blockSize)
    }
  }

  /** Gives every block back and empties the table. Full blocks stay findable until they are reused. */
  free(sequence: KvSequence): void {
    for (let i = sequence.numBlocks - 1; i >= 0; i--) this.pool.release(blockId(sequence.blockTable[i] as number))
    sequence.numBlocks = 0
    sequence.numRegisteredBlocks = 0
    sequence.prefixId = EMPTY_PREFIX_ID
    this.#sequences.delete(sequence)
  }

  /** The pool's own checks, and ref counts = uses in block tables. */
  checkIntegrity(): void {
    this.pool.checkIntegrity()
    const uses = new Int32Array(this.pool.numBlocks)
    for (const sequence of this.#sequences) {
      invariant(sequence.numRegisteredBlocks <= sequence.numBlocks, 'more blocks registered than held')
      for (let i = 0; i < sequence.numBlocks; i++) {
        const block = sequence.blockTable[i] as number
        uses[block] = (uses[block] as number) + 1
      }
    }
    for (let b = 0; b < uses.length; b++) {
      const refCount = this.pool.refCountOf(blockId(b))
      invariant(refCount === uses[b], `block ${b}: ${refCount} references, ${uses[b]} uses in block tables`)
    }
  }

  /** Blocks that end at or before the activation start hold the base model's keys, whatever the adapter. */
  #seedOf(sequence: KvSequence, blockIndex: number): BlockSeed {
    const end = (blockIndex + 1) * this.pool.blockSize
    if (end <= sequence.numVirtualTokens) return sequence.virtualSeed
    return end <= sequence.activationStart ? sequence.baseSeed : sequence.adapterSeed
  }

  #append(sequence: KvSequence, block: number): void {
    if (sequence.numBlocks === 0) this.#sequences.add(sequence)
    if (sequence.numBlocks === sequence.blockTable.length) {
      const grown = new Int32Array(sequence.blockTable.length * 2)
      grown.set(sequence.blockTable)
      sequence.blockTable = grown
    }
    sequence.blockTable[sequence.numBlocks++] = block
  }
}
