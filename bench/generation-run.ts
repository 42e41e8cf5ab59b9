// What one timed generation gives, whichever engine ran it, and the prompts all of them run.

/** Every prompt of the run got the same number of output tokens. */
export interface GenerationRun {
  /** One row a prompt, in the order given. */
  readonly tokens: readonly Int32Array[]
  /** From hand-over of all prompts to the last token, prefill included. */
  readonly totalMs: number
  /** While every sequence of the run was decoding and no prompt was being computed. */
  readonly decodeMs: number
  /** Tokens made within `decodeMs`. */
  readonly numDecodeTokens: number
}

/** Output tokens a second over the whole run, prefill included. */
export function totalRate(run: GenerationRun): number {
  const numTokens = run.tokens.reduce((sum, row) => sum + row.length, 0)
  return (numTokens / run.totalMs) * 1000
}

/** Output tokens a second while all sequences decode. */
export function decodeRate(run: GenerationRun): number {
  return (run.numDecodeTokens / run.decodeMs) * 1000
}

/** Ids below are special tokens in most vocabularies. */
const FIRST_PLAIN_TOKEN = 3

/** Seeded prompts without a common prefix, so that no prefix cache shortens them. LCG of Numerical Recipes. */
export function randomPrompts(numPrompts: number, length: number, vocabSize: number, seed = 1): Int32Array[] {
  let state = seed >>> 0
  return Array.from({ length: numPrompts }, () =>
    Int32Array.from({ length }, () => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
      // The low bits of an LCG have short periods.
      return FIRST_PLAIN_TOKEN + Math.floor((state / 2 ** 32) * (vocabSize - FIRST_PLAIN_TOKEN))
    }),
  )
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2
}
