import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { BlockPool } from '../../src/kv/block-pool.ts'
import { KvCacheManager, KvSequence, type PrefixIdentity } from '../../src/kv/kv-cache-manager.ts'
import { prompt, randomSource } from '../support/engine-harness.ts'

const BASE: PrefixIdentity = {
  kvDigest: '',
  activationStart: 0,
  numVirtualTokens: 0,
  promptCoupling: 'none',
  numPromptTokens: 0,
  cacheSalt: '',
}
const BLOCK_SIZE = 4

function compute(kv: KvCacheManager, sequence: KvSequence, tokens: Int32Array): number {
  const numCached = kv.attachPrefix(sequence, tokens, tokens.length)
  assert.ok(kv.tryGrow(sequence, tokens.length))
  kv.commit(sequence, tokens, tokens.length)
  kv.checkIntegrity()
  return numCached
}

/** Cached tokens a second sequence finds after a first one has run and gone. */
function reuse(first: Partial<typeof BASE>, second: Partial<typeof BASE>, length = 20): number {
  const kv = new KvCacheManager(new BlockPool(32, BLOCK_SIZE), true)
  const tokens = Int32Array.from(prompt(length))
  const a = new KvSequence({ ...BASE, ...first })
  compute(kv, a, tokens)
  kv.free(a)
  return compute(kv, new KvSequence({ ...BASE, ...second }), tokens)
}

describe('KvCacheManager', () => {
  it('finds all full blocks but never the last token', () => {
    assert.equal(reuse({}, {}, 20), 16)
    assert.equal(reuse({}, {}, 21), 20)
    assert.equal(reuse({}, {}, 4), 0)
  })

  it('separates adapters, salts, and adapters from the base', () => {
    assert.equal(reuse({ kvDigest: 'a' }, { kvDigest: 'a' }), 16)
    assert.equal(reuse({ kvDigest: 'a' }, { kvDigest: 'b' }), 0)
    assert.equal(reuse({ kvDigest: 'a' }, {}), 0)
    assert.equal(reuse({ cacheSalt: 's' }, { cacheSalt: 's' }), 16)
    assert.equal(reuse({ cacheSalt: 's' }, {}), 0)
    assert.equal(reuse({ cacheSalt: 's' }, { cacheSalt: 't' }), 0)
  })

  it('cannot be confused by digests and salts that run together', () => {
    assert.equal(reuse({ kvDigest: 'a', cacheSalt: 'b' }, { kvDigest: 'ab', cacheSalt: '' }), 0)
    assert.equal(reuse({ kvDigest: '', cacheSalt: 'a@0' }, { kvDigest: 'a', cacheSalt: '' }), 0)
  })

  it('shares blocks of prompts of one length alone where keys depend on it', () => {
    const ofLength = (numPromptTokens: number) => ({ kvDigest: 'a', promptCoupling: 'length' as const, numPromptTokens })
    assert.equal(reuse(ofLength(20), ofLength(20)), 16)
    assert.equal(reuse(ofLength(20), ofLength(19)), 0)
    assert.equal(reuse({ kvDigest: 'a', numPromptTokens: 20 }, { kvDigest: 'a', numPromptTokens: 19 }), 16)
  })

  it('shares nothing but blocks of virtual tokens where keys depend on the whole prompt', () => {
    const whole = { kvDigest: 'a', promptCoupling: 'whole' as const, numPromptTokens: 20 }
    assert.equal(reuse(whole, whole), 0)
    const behindPrefix = { ...whole, numVirtualTokens: 9, numPromptTokens: 11 }
    assert.equal(reuse(behindPrefix, behindPrefix), 8)
  })

  it('shares base blocks up to the start of an activated adapter, and none after', () => {
    assert.equal(reuse({}, { kvDigest: 'a', activationStart: 8 }), 8)
    assert.equal(reuse({}, { kvDigest: 'a', activationStart: 11 }), 8)
    assert.equal(reuse({ kvDigest: 'a', activationStart: 11 }, {}), 8)
    assert.equal(reuse({ kvDigest: 'a', activationStart: 11 }, { kvDigest: 'a', activationStart: 11 }), 16)
  })

  it('separates equal tokens activated at different places of one block', () => {
    assert.equal(reuse({ kvDigest: 'a', activationStart: 9 }, { kvDigest: 'a', activationStart: 10 }), 8)
  })

  it('changes nothing when the pool has no room', () => {
    const kv = new KvCacheManager(new BlockPool(2, BLOCK_SIZE), true)
    const sequence = new KvSequence(BASE)
    assert.equal(kv.tryGrow(sequence, 9), false)
    assert.equal(sequence.numBlocks, 0)
    assert.equal(kv.tryGrow(sequence, 8), true)
    kv.checkIntegrity()
  })

  it('shares blocks between sequences that run at once and counts both', () => {
    const kv = new KvCacheManager(new BlockPool(16, BLOCK_SIZE), true)
    const tokens = Int32Array.from(prompt(12))
    const a = new KvSequence(BASE)
    const b = new KvSequence(BASE)
    compute(kv, a, tokens)
    assert.equal(compute(kv, b, tokens), 8)
    assert.deepEqual([...b.blockTable.subarray(0, 2)], [...a.blockTable.subarray(0, 2)])
    assert.notEqual(a.blockTable[2], b.blockTable[2])
    assert.equal(kv.pool.numReferenced, 4)
    kv.free(a)
    assert.equal(kv.pool.numReferenced, 3)
    kv.free(b)
    assert.equal(kv.pool.numReferenced, 0)
    kv.checkIntegrity()
  })

  it('finds nothing when prefix caching is off', () => {
    const kv = new KvCacheManager(new BlockPool(16, BLOCK_SIZE), false)
    const tokens = Int32Array.from(prompt(12))
    const a = new KvSequence(BASE)
    compute(kv, a, tokens)
    kv.free(a)
    assert.equal(kv.pool.numFree, 16)
    assert.equal(compute(kv, new KvSequence(BASE), tokens), 0)
  })

  it('never serves a wrong block under random use of a small pool', () => {
    const random = randomSource(3)
    const kv = new KvCacheManager(new BlockPool(20, BLOCK_SIZE), true)
    // What was really written into each block, chain and seed included.
    const written = new Map<number, string>()
    const live: { sequence: KvSequence; length: number }[] = []
    const name = (seed: string, tokens: Int32Array, end: number): string => `${seed}:${tokens.subarray(0, end).join(',')}`
    for (let i = 0; i < 3000; i++) {
      if (live.length > 0 && random.below(2) === 0) {
        kv.free(live.splice(random.below(live.length), 1)[0]!.sequence)
      } else {
        const kvDigest = ['', 'a', 'b'][random.below(3)]!
        const tokens = Int32Array.from({ length: 1 + random.below(24) }, () => random.below(2))
        const sequence = new KvSequence({ ...BASE, kvDigest })
        const numCached = kv.attachPrefix(sequence, tokens, tokens.length)
        for (let b = 0; b * BLOCK_SIZE < numCached; b++) {
          assert.equal(written.get(sequence.blockTable[b]!), name(kvDigest, tokens, (b + 1) * BLOCK_SIZE))
        }
        if (!kv.tryGrow(sequence, tokens.length)) {
          kv.free(sequence)
          continue
        }
        for (let b = numCached / BLOCK_SIZE; b < sequence.numBlocks; b++) {
          written.set(sequence.blockTable[b]!, name(kvDigest, tokens, (b + 1) * BLOCK_SIZE))
        }
        kv.commit(sequence, tokens, tokens.length)
        live.push({ sequence, length: tokens.length })
      }
      kv.checkIntegrity()
    }
  })
})
