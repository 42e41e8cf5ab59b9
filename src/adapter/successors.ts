import type { AdapterId } from '../core/ids.ts'

/** A request names the generation that was listed when the server looked; it reaches the engine long before this has passed. */
const MEMORY_MS = 60_000

interface Replacement {
  readonly successor: AdapterId
  readonly replacedAtMs: number
}

/** Which generation took the place of another, remembered for a while. */
export class Successors {
  /** In order of time. */
  readonly #replacements = new Map<AdapterId, Replacement>()

  record(replaced: AdapterId, successor: AdapterId, nowMs: number): void {
    for (const [id, { replacedAtMs }] of this.#replacements) {
      if (nowMs - replacedAtMs <= MEMORY_MS) break
      this.#replacements.delete(id)
    }
    this.#replacements.set(replaced, { successor, replacedAtMs: nowMs })
  }

  /** The newest generation in the place of `id`; `id` itself when it was not replaced. */
  newest(id: AdapterId): AdapterId {
    let newest = id
    for (let next = this.#replacements.get(id); next !== undefined; next = this.#replacements.get(newest))
      newest = next.successor
    return newest
  }
}
