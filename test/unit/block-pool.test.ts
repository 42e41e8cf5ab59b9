import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { BlockId } from '../../src/core/ids.ts'
import { EMPTY_PREFIX_ID, hashBlock, hashSeed } from '../../src/kv/block-hash.ts'
import { BlockPool } from '../../src/kv/block-pool.ts'
import { randomSource } from '../support/engine-harness.ts'

const SEED = { text: 'base', hash: hashSeed('base') }
const tokens = (...ids: number[]): Int32Array => Int32Array.from(ids)

describe('BlockPool', () => {
  it('gives every block once, then null', () => {
    const pool = new BlockPool(3, 2)
    const blocks = [pool.tryAllocate(), pool.tryAllocate(), pool.tryAllocate()]
    assert.deepEqual(new Set(blocks), new Set([0, 1, 2]))
    assert.equal(pool.tryAllocate(), null)
    pool.checkIntegrity()
  })

  it('refuses a second release', () => {
    const pool = new BlockPool(2, 2)
    const block = pool.tryAllocate() as BlockId
    pool.release(block)
    assert.throws(() => pool.release(block), /released twice/)
  })

  it('keeps the contents of a released block until it is reused, least recently released first', () => {
    const pool = new BlockPool(2, 2)
    const a = pool.tryAllocate() as BlockId
    const b = pool.tryAllocate() as BlockId
    pool.register(a, EMPTY_PREFIX_ID, SEED, tokens(1, 2), 0)
    pool.register(b, EMPTY_PREFIX_ID, SEED, tokens(3, 4), 0)
    pool.release(a)
    pool.release(b)
    assert.equal(pool.numCached, 2)
    assert.equal(pool.find(EMPTY_PREFIX_ID, SEED, tokens(1, 2), 0), a)
    assert.equal(pool.tryAllocate(), a)
    assert.equal(pool.find(EMPTY_PREFIX_ID, SEED, tokens(1, 2), 0), null)
    assert.equal(pool.find(EMPTY_PREFIX_ID, SEED, tokens(3, 4), 0), b)
    pool.checkIntegrity()
  })

  it('reuses blocks without contents before cached ones', () => {
    const pool = new BlockPool(2, 2)
    const a = pool.tryAllocate() as BlockId
    const b = pool.tryAllocate() as BlockId
    pool.register(a, EMPTY_PREFIX_ID, SEED, tokens(1, 2), 0)
    pool.release(a)
    pool.release(b)
    assert.equal(pool.tryAllocate(), b)
  })

  it('tells blocks apart by parent, seed and every token', () => {
    const pool = new BlockPool(4, 2)
    const a = pool.tryAllocate() as BlockId
    const id = pool.register(a, EMPTY_PREFIX_ID, SEED, tokens(1, 2), 0)
    assert.equal(pool.find(EMPTY_PREFIX_ID, SEED, tokens(1, 2), 0), a)
    assert.equal(pool.find(EMPTY_PREFIX_ID, SEED, tokens(1, 3), 0), null)
    assert.equal(pool.find(EMPTY_PREFIX_ID, SEED, tokens(2, 1), 0), null)
    assert.equal(pool.find(id, SEED, tokens(1, 2), 0), null)
    assert.equal(pool.find(EMPTY_PREFIX_ID, { text: 'other', hash: hashSeed('other') }, tokens(1, 2), 0), null)
  })

  it('does not believe the hash: a seed with a colliding hash finds nothing', () => {
    const pool = new BlockPool(2, 2)
    const a = pool.tryAllocate() as BlockId
    pool.register(a, EMPTY_PREFIX_ID, SEED, tokens(1, 2), 0)
    assert.equal(pool.find(EMPTY_PREFIX_ID, { text: 'evil', hash: SEED.hash }, tokens(1, 2), 0), null)
    const b = pool.tryAllocate() as BlockId
    pool.register(b, EMPTY_PREFIX_ID, { text: 'evil', hash: SEED.hash }, tokens(1, 2), 0)
    assert.equal(pool.find(EMPTY_PREFIX_ID, SEED, tokens(1, 2), 0), a)
    pool.checkIntegrity()
  })

  it('names equal chains alike and never merges their blocks', () => {
    const pool = new BlockPool(2, 2)
    const a = pool.tryAllocate() as BlockId
    const b = pool.tryAllocate() as BlockId
    const first = pool.register(a, EMPTY_PREFIX_ID, SEED, tokens(1, 2), 0)
    assert.equal(pool.register(b, EMPTY_PREFIX_ID, SEED, tokens(1, 2), 0), first)
    pool.release(b)
    assert.equal(pool.numFree, 1)
    assert.equal(pool.numReferenced, 1)
    pool.checkIntegrity()
  })

  it('holds its invariants under random operations', () => {
    const random = randomSource(7)
    const pool = new BlockPool(24, 2)
    const held: BlockId[] = []
    const chains = [EMPTY_PREFIX_ID]
    for (let i = 0; i < 5000; i++) {
      const parent = chains[random.below(chains.length)]!
      const content = tokens(random.below(3), random.below(3))
      const roll = random.below(10)
      if (roll < 4) {
        const block = pool.tryAllocate()
        if (block === null) assert.equal(pool.numReferenced, 24)
        else {
          held.push(block)
          if (random.below(3) > 0) chains.push(pool.register(block, parent, SEED, content, 0))
        }
      } else if (roll < 6) {
        const found = pool.find(parent, SEED, content, 0)
        if (found !== null) {
          pool.acquire(found)
          held.push(found)
        }
      } else if (held.length > 0) {
        pool.release(held.splice(random.below(held.length), 1)[0]!)
      }
      pool.checkIntegrity()
      assert.equal(pool.numReferenced, new Set(held).size)
    }
  })
})

describe('hashBlock', () => {
  it('spreads: no collision among 100,000 blocks that differ little', () => {
    const seen = new Set<number>()
    for (let parent = 0; parent < 10; parent++) {
      for (let token = 0; token < 10_000; token++) seen.add(hashBlock(parent, SEED.hash, tokens(token, 0, 0, 0), 0, 4))
    }
    assert.equal(seen.size, 100_000)
  })

  it('is a safe integer', () => {
    for (let i = 0; i < 1000; i++) assert.ok(Number.isSafeInteger(hashBlock(2 ** 40 + i, i, tokens(i, -i), 0, 2)))
  })
})
