import type { TokenGap } from './messages.ts'

/** Times between successive tokens in one step, equal ones counted together. */
export class TokenGaps {
  readonly #countByMs = new Map<number, number>()

  add(gapMs: number): void {
    this.#countByMs.set(gapMs, (this.#countByMs.get(gapMs) ?? 0) + 1)
  }

  /** What was added since the last call. */
  take(): TokenGap[] {
    const gaps = Array.from(this.#countByMs, ([gapMs, count]) => ({ gapMs, count }))
    this.#countByMs.clear()
    return gaps
  }
}
