// One asynchronous operation per key at a time; different keys run side by side.

export class KeyedLock {
  readonly #tails = new Map<string, Promise<void>>()

  /** Runs `operation` after those started earlier under the same key, whatever their outcome. */
  async run<T>(key: string, operation: () => Promise<T>): Promise<T> {
    const previous = this.#tails.get(key) ?? Promise.resolve()
    const result = previous.then(operation)
    const tail = result.then(ignore, ignore)
    this.#tails.set(key, tail)
    try {
      return await result
    } finally {
      if (this.#tails.get(key) === tail) this.#tails.delete(key)
    }
  }
}

function ignore(): void {}
