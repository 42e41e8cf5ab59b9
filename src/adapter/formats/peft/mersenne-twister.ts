// The CPU random stream of PyTorch: some adapters store a seed in place of the random tensors they were trained with, and those
// must come out bit by bit as the trainer drew them. MT19937 (Matsumoto and Nishimura 1998), seeded with 32 bits.

const STATE_WORDS = 624
const SHIFT_WORDS = 397
const TWIST_MASK = 0x9908b0df
const UPPER_BIT = 0x80000000
const LOWER_BITS = 0x7fffffff
const SEED_MULTIPLIER = 1812433253

/** PyTorch keeps as many bits of a draw as a float32 has. */
const FLOAT_BITS_MASK = 0xffffff
const FLOAT_STEP = 2 ** -24

export class MersenneTwister {
  readonly #state = new Uint32Array(STATE_WORDS)
  #next = STATE_WORDS

  /** PyTorch takes 64 bits and uses the low 32. */
  constructor(seed: number) {
    const state = this.#state
    state[0] = Number(BigInt.asUintN(32, BigInt(seed)))
    for (let i = 1; i < STATE_WORDS; i++) {
      const previous = state[i - 1] as number
      state[i] = Math.imul(SEED_MULTIPLIER, previous ^ (previous >>> 30)) + i
    }
  }

  /** 32 random bits, unsigned. */
  nextUint32(): number {
    if (this.#next === STATE_WORDS) this.#twist()
    let value = this.#state[this.#next++] as number
    value ^= value >>> 11
    value ^= (value << 7) & 0x9d2c5680
    value ^= (value << 15) & 0xefc60000
    return (value ^ (value >>> 18)) >>> 0
  }

  /**
   * `count` uniform float32 values in [low, high). PyTorch's kernels multiply and add in one instruction, so only the sum is
   * rounded to float32 (checked against torch 2.13 on x86-64: bit for bit).
   */
  uniform(count: number, low: number, high: number): Float32Array {
    const start = Math.fround(low)
    const width = Math.fround(Math.fround(high) - start)
    const out = new Float32Array(count)
    for (let i = 0; i < count; i++) {
      const unit = (this.nextUint32() & FLOAT_BITS_MASK) * FLOAT_STEP
      out[i] = unit * width + start
    }
    return out
  }

  #twist(): void {
    const state = this.#state
    for (let i = 0; i < STATE_WORDS; i++) {
      const joined = ((state[i] as number) & UPPER_BIT) | ((state[(i + 1) % STATE_WORDS] as number) & LOWER_BITS)
      const twisted = (joined >>> 1) ^ (joined & 1 ? TWIST_MASK : 0)
      state[i] = (state[(i + SHIFT_WORDS) % STATE_WORDS] as number) ^ twisted
    }
    this.#next = 0
  }
}
