/**
 * A uniform number in [0, 1) that depends on nothing but its two arguments, so that batching, chunking and preemption
 * never change what a request draws. Counter-based: MurmurHash3's 32-bit finaliser over the words of both.
 */
export function uniform(seed: number, index: number): number {
  const low = seed | 0
  const high = Math.floor(seed / 2 ** 32) | 0
  const a = mix(mix(mix(0x243f6a88, low), high), index)
  const b = mix(mix(mix(0x13198a2e, index), low), high)
  return ((a >>> 0) * 2 ** 21 + (b >>> 11)) / 2 ** 53
}

function mix(state: number, word: number): number {
  let h = Math.imul(state ^ word, 0x9e3779b1)
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return h ^ (h >>> 16)
}
