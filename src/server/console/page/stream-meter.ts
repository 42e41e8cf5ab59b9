// Times of one stream as its reader sees them.

export interface StreamFigures {
  /** null before the first token. */
  readonly ttftMs: number | null
  readonly numTokens: number
  /** null until two chunks have come: one chunk has no duration. */
  readonly tokensPerS: number | null
}

export class StreamMeter {
  readonly #sentAtMs: number
  #firstAtMs: number | null = null
  #lastAtMs = 0
  #numFirstTokens = 0
  #numTokens = 0

  constructor(sentAtMs: number) {
    this.#sentAtMs = sentAtMs
  }

  /** `numTokens` counts from the start of the stream. */
  record(numTokens: number, atMs: number): void {
    if (numTokens <= this.#numTokens) return
    if (this.#firstAtMs === null) {
      this.#firstAtMs = atMs
      this.#numFirstTokens = numTokens
    }
    this.#numTokens = numTokens
    this.#lastAtMs = atMs
  }

  figures(): StreamFigures {
    const firstAtMs = this.#firstAtMs
    if (firstAtMs === null) return { ttftMs: null, numTokens: 0, tokensPerS: null }
    const spanMs = this.#lastAtMs - firstAtMs
    return {
      ttftMs: firstAtMs - this.#sentAtMs,
      numTokens: this.#numTokens,
      tokensPerS: spanMs > 0 ? ((this.#numTokens - this.#numFirstTokens) * 1000) / spanMs : null,
    }
  }
}
