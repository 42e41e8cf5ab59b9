// Seeded pseudo-random numbers: the same seed gives the same trace on every machine.

/** Uniform draws from one seeded stream. */
export interface Random {
  /** Uniform in [0, 1), 53 bits. */
  next(): number
  /** Uniform 32-bit unsigned integer. */
  nextUint32(): number
}

/**
 * A stream of random numbers (xoshiro128**, Blackman and Vigna 2018), seeded through splitmix32.
 * @param seed any safe integer
 * @param stream names an independent stream, so that changing one law of a workload leaves the draws of the others alone
 */
export function createRandom(seed: number, stream: string): Random {
  const mix = splitmix32(hashText(`${seed}/${stream}`))
  let a = mix()
  let b = mix()
  let c = mix()
  // The all-zero state is the generator's one fixed point.
  let d = mix() | 1
  const nextUint32 = (): number => {
    const result = Math.imul(rotateLeft(Math.imul(b, 5), 7), 9) >>> 0
    const t = b << 9
    c ^= a
    d ^= b
    b ^= c
    a ^= d
    c ^= t
    d = rotateLeft(d, 11)
    return result
  }
  return { nextUint32, next: () => ((nextUint32() >>> 5) * 67_108_864 + (nextUint32() >>> 6)) / 9_007_199_254_740_992 }
}

/** Uniform integer in [0, bound). */
export function drawIndex(random: Random, bound: number): number {
  return Math.floor(random.next() * bound)
}

/** Fisher-Yates, in place. */
export function shuffle<T>(items: T[], random: Random): T[] {
  for (let last = items.length - 1; last > 0; last -= 1) {
    const other = drawIndex(random, last + 1)
    const held = items[last] as T
    items[last] = items[other] as T
    items[other] = held
  }
  return items
}

function rotateLeft(value: number, bits: number): number {
  return (value << bits) | (value >>> (32 - bits))
}

function splitmix32(seed: number): () => number {
  let state = seed | 0
  return () => {
    state = (state + 0x9e3779b9) | 0
    let z = state
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad)
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97)
    return z ^ (z >>> 15)
  }
}

/** FNV-1a, 32 bits. */
function hashText(text: string): number {
  let hash = 0x811c9dc5
  for (let index = 0; index < text.length; index += 1) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193)
  return hash >>> 0
}
