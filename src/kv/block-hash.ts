// Where a full block's contents are looked up. The hash only finds a candidate; BlockPool compares the contents themselves,
// so a collision, found by chance or by an attacker, costs a cache miss and never mixes two requests.

/** Prefix id of the empty prefix; every cached block has a larger one. */
export const EMPTY_PREFIX_ID = 0

/** FNV-1a over UTF-16 units, 32 bits. A seed separates adapters and cache salts; hash it once a request. */
export function hashSeed(seed: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < seed.length; i++) hash = Math.imul(hash ^ seed.charCodeAt(i), 0x01000193)
  return hash >>> 0
}

/**
 * 53-bit hash of one block: its parent's prefix id, the seed and `length` tokens from `start`.
 * Two MurmurHash3-style lanes, since a JavaScript number holds 53 exact bits.
 */
export function hashBlock(parentPrefixId: number, seedHash: number, tokens: Int32Array, start: number, length: number): number {
  let low = mix(seedHash, parentPrefixId | 0)
  let high = mix(~seedHash, Math.floor(parentPrefixId / 2 ** 32) ^ 0x9e3779b9)
  for (let i = start; i < start + length; i++) {
    const token = tokens[i] as number
    low = mix(low, token)
    high = mix(high, token ^ 0x5bd1e995)
  }
  return (avalanche(low) >>> 0) * 2 ** 21 + (avalanche(high ^ low) >>> 11)
}

function mix(hash: number, word: number): number {
  let k = Math.imul(word, 0xcc9e2d51)
  k = Math.imul((k << 15) | (k >>> 17), 0x1b873593)
  const h = hash ^ k
  return (Math.imul((h << 13) | (h >>> 19), 5) + 0xe6546b64) | 0
}

function avalanche(hash: number): number {
  let h = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return h ^ (h >>> 16)
}
