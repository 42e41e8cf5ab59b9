// The one owner of KV blocks: who may write each, who shares it, and which contents can be found again.
//
//   eviction order   head [ never cached … | cached, least recently released … most recently released ] tail
//
// A block is in the list exactly while nobody references it. A released chain enters the list last block first,
// so a block is always reused before the prefix it extends.

import type { BlockId } from '../core/ids.ts'
import { blockId } from '../core/ids.ts'
import { invariant } from '../core/invariant.ts'
import { EMPTY_PREFIX_ID, hashBlock } from './block-hash.ts'

/** What tells blocks with equal tokens apart: an adapter's KV digest, an activation start, a cache salt. */
export interface BlockSeed {
  readonly text: string
  /** `hashSeed(text)`. */
  readonly hash: number
}

export class BlockPool {
  readonly numBlocks: number
  readonly blockSize: number

  readonly #refCounts: Int32Array
  // Doubly linked list through the blocks; index numBlocks is its sentinel.
  readonly #next: Int32Array
  readonly #prev: Int32Array
  #numUnreferenced = 0
  #numUnreferencedCached = 0

  // Contents of cached blocks. A prefix id names one chain of blocks for ever: ids are never used twice.
  readonly #prefixIds: Float64Array // [numBlocks], EMPTY_PREFIX_ID = not cached
  readonly #parentIds: Float64Array // [numBlocks]
  readonly #hashes: Float64Array // [numBlocks]
  readonly #seeds: string[]
  readonly #tokens: Int32Array // [numBlocks, blockSize]
  readonly #cachedByHash = new Map<number, BlockId>()
  #lastPrefixId = EMPTY_PREFIX_ID

  constructor(numBlocks: number, blockSize: number) {
    invariant(numBlocks > 0 && blockSize > 0, `a pool of ${numBlocks} blocks of ${blockSize} tokens`)
    this.numBlocks = numBlocks
    this.blockSize = blockSize
    this.#refCounts = new Int32Array(numBlocks)
    this.#next = new Int32Array(numBlocks + 1)
    this.#prev = new Int32Array(numBlocks + 1)
    this.#prefixIds = new Float64Array(numBlocks)
    this.#parentIds = new Float64Array(numBlocks)
    this.#hashes = new Float64Array(numBlocks)
    this.#seeds = new Array<string>(numBlocks).fill('')
    this.#tokens = new Int32Array(numBlocks * blockSize)
    this.#next[numBlocks] = numBlocks
    this.#prev[numBlocks] = numBlocks
    for (let block = 0; block < numBlocks; block++) this.#insertBefore(numBlocks, block)
  }

  /** Unreferenced blocks whose contents nobody can find. */
  get numFree(): number {
    return this.#numUnreferenced - this.#numUnreferencedCached
  }

  /** Unreferenced blocks kept for their contents; the pool takes them back when it needs room. */
  get numCached(): number {
    return this.#numUnreferencedCached
  }

  get numReferenced(): number {
    return this.numBlocks - this.#numUnreferenced
  }

  get numAvailable(): number {
    return this.#numUnreferenced
  }

  /** A block with one reference and no contents; null when every block is referenced. */
  tryAllocate(): BlockId | null {
    const block = this.#next[this.numBlocks] as number
    if (block === this.numBlocks) return null
    if (this.#prefixIds[block] !== EMPTY_PREFIX_ID) this.#forget(block)
    this.#unlink(block)
    this.#refCounts[block] = 1
    return blockId(block)
  }

  /** One more reference to a block found by `find`. */
  acquire(block: BlockId): void {
    if (this.#refCounts[block] === 0) {
      invariant(this.#prefixIds[block] !== EMPTY_PREFIX_ID, `block ${block} has no contents to share`)
      this.#numUnreferencedCached--
      this.#unlink(block)
    }
    this.#refCounts[block] = (this.#refCounts[block] as number) + 1
  }

  /** One reference less. Release a chain last block first. */
  release(block: BlockId): void {
    const refCount = (this.#refCounts[block] as number) - 1
    invariant(refCount >= 0, `block ${block} released twice`)
    this.#refCounts[block] = refCount
    if (refCount > 0) return
    if (this.#prefixIds[block] === EMPTY_PREFIX_ID) {
      this.#insertBefore(this.#next[this.numBlocks] as number, block)
    } else {
      this.#insertBefore(this.numBlocks, block)
      this.#numUnreferencedCached++
    }
  }

  /** The block that extends `parentPrefixId` by the `blockSize` tokens at `start`, or null. Pure; valid until the next allocation. */
  find(parentPrefixId: number, seed: BlockSeed, tokens: Int32Array, start: number): BlockId | null {
    const block = this.#cachedByHash.get(hashBlock(parentPrefixId, seed.hash, tokens, start, this.blockSize))
    return block !== undefined && this.#holds(block, parentPrefixId, seed, tokens, start) ? block : null
  }

  /** Name of the chain that ends in this cached block. */
  prefixIdOf(block: BlockId): number {
    const prefixId = this.#prefixIds[block] as number
    invariant(prefixId !== EMPTY_PREFIX_ID, `block ${block} is not cached`)
    return prefixId
  }

  /**
   * Makes a full, referenced block findable and returns the prefix id of its chain. Where an equal block is findable already,
   * that one's id is returned and this one stays private: block tables are append-only, so equal blocks are not merged.
   */
  register(block: BlockId, parentPrefixId: number, seed: BlockSeed, tokens: Int32Array, start: number): number {
    invariant((this.#refCounts[block] as number) > 0, `block ${block} registered without a reference`)
    invariant(this.#prefixIds[block] === EMPTY_PREFIX_ID, `block ${block} registered twice`)
    const hash = hashBlock(parentPrefixId, seed.hash, tokens, start, this.blockSize)
    const other = this.#cachedByHash.get(hash)
    if (other !== undefined && this.#holds(other, parentPrefixId, seed, tokens, start)) return this.#prefixIds[other] as number
    const prefixId = ++this.#lastPrefixId
    if (other !== undefined) return prefixId // a colliding hash: this block goes unfound
    this.#cachedByHash.set(hash, block)
    this.#prefixIds[block] = prefixId
    this.#parentIds[block] = parentPrefixId
    this.#hashes[block] = hash
    this.#seeds[block] = seed.text
    for (let i = 0; i < this.blockSize; i++) this.#tokens[block * this.blockSize + i] = tokens[start + i] as number
    return prefixId
  }

  refCountOf(block: BlockId): number {
    return this.#refCounts[block] as number
  }

  /** Free + referenced + cached = all blocks; the list and the lookup hold exactly what they should. */
  checkIntegrity(): void {
    const isListed = new Uint8Array(this.numBlocks)
    let numListed = 0
    for (let b = this.#next[this.numBlocks] as number; b !== this.numBlocks; b = this.#next[b] as number) {
      invariant(this.#prev[this.#next[b] as number] === b, `eviction list broken after block ${b}`)
      invariant(isListed[b] === 0, `block ${b} listed twice`)
      isListed[b] = 1
      numListed++
    }
    invariant(numListed === this.#numUnreferenced, `${numListed} blocks listed, ${this.#numUnreferenced} counted`)
    let numReferenced = 0
    let numCached = 0
    let numFindable = 0
    for (let b = 0; b < this.numBlocks; b++) {
      const isReferenced = (this.#refCounts[b] as number) > 0
      const isCached = this.#prefixIds[b] !== EMPTY_PREFIX_ID
      invariant(isReferenced !== (isListed[b] === 1), `block ${b}: referenced and listed, or neither`)
      if (isReferenced) numReferenced++
      if (isCached && !isReferenced) numCached++
      if (isCached) numFindable++
      if (isCached) invariant(this.#cachedByHash.get(this.#hashes[b] as number) === b, `block ${b} cannot be found`)
    }
    invariant(numCached === this.numCached, `${numCached} cached blocks, ${this.numCached} counted`)
    invariant(numFindable === this.#cachedByHash.size, `${numFindable} findable blocks, ${this.#cachedByHash.size} hashes`)
    invariant(this.numFree + numReferenced + numCached === this.numBlocks, 'free + referenced + cached is not all blocks')
  }

  #holds(block: BlockId, parentPrefixId: number, seed: BlockSeed, tokens: Int32Array, start: number): boolean {
    if (this.#parentIds[block] !== parentPrefixId || this.#seeds[block] !== seed.text) return false
    const offset = block * this.blockSize
    for (let i = 0; i < this.blockSize; i++) if (this.#tokens[offset + i] !== tokens[start + i]) return false
    return true
  }

  #forget(block: number): void {
    this.#cachedByHash.delete(this.#hashes[block] as number)
    this.#prefixIds[block] = EMPTY_PREFIX_ID
    this.#seeds[block] = ''
    this.#numUnreferencedCached--
  }

  #insertBefore(successor: number, block: number): void {
    const predecessor = this.#prev[successor] as number
    this.#next[predecessor] = block
    this.#prev[block] = predecessor
    this.#next[block] = successor
    this.#prev[successor] = block
    this.#numUnreferenced++
  }

  #unlink(block: number): void {
    const predecessor = this.#prev[block] as number
    const successor = this.#next[block] as number
    this.#next[predecessor] = successor
    this.#prev[successor] = predecessor
    this.#numUnreferenced--
  }
}
