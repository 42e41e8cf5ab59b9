// Finds the first stop string in a stream of text and holds back what may be the beginning of one.

export interface StopMatch {
  /** Text that is decided and may be sent. */
  readonly text: string
  /** The stop string that was met; null while none was. */
  readonly stop: string | null
}

export class StopStrings {
  readonly #stops: readonly string[]
  readonly #isStopIncluded: boolean
  #held = ''

  /** `includeStop` leaves the matched text in the output. */
  constructor(stops: readonly string[], includeStop: boolean) {
    this.#stops = stops
    this.#isStopIncluded = includeStop
  }

  /** Takes the next piece of text. The earliest match wins, the longest of those that begin together. */
  push(text: string): StopMatch {
    if (this.#stops.length === 0) return { text, stop: null }
    const buffer = this.#held + text
    const found = this.#find(buffer)
    if (found !== null) {
      this.#held = ''
      const end = this.#isStopIncluded ? found.index + found.stop.length : found.index
      return { text: buffer.slice(0, end), stop: found.stop }
    }
    const numHeld = this.#heldLength(buffer)
    this.#held = buffer.slice(buffer.length - numHeld)
    return { text: buffer.slice(0, buffer.length - numHeld), stop: null }
  }

  /** The text held back when nothing more comes: it was no stop string after all. */
  flush(): string {
    const text = this.#held
    this.#held = ''
    return text
  }

  #find(buffer: string): { index: number; stop: string } | null {
    let best: { index: number; stop: string } | null = null
    for (const stop of this.#stops) {
      const index = buffer.indexOf(stop)
      if (index < 0) continue
      if (best === null || index < best.index || (index === best.index && stop.length > best.stop.length))
        best = { index, stop }
    }
    return best
  }

  /** Length of the longest suffix of `buffer` that begins a stop string. */
  #heldLength(buffer: string): number {
    let longest = 0
    for (const stop of this.#stops) {
      for (let length = Math.min(stop.length - 1, buffer.length); length > longest; length--) {
        if (buffer.endsWith(stop.slice(0, length))) longest = length
      }
    }
    return longest
  }
}
