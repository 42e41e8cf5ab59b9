// Browsers open six connections to one server over HTTP/1.1, and every stream takes one until it ends.

/** One of the six is left for the live view. */
export const MAX_STREAMS = 5

export class ConnectionLimit {
  readonly #waiting: (() => void)[] = []
  #numFree: number

  constructor(numConnections: number) {
    this.#numFree = numConnections
  }

  /** Whether the next one has to wait. */
  get isReached(): boolean {
    return this.#numFree === 0
  }

  /** Resolves, in order of asking, to a function that gives the connection back. Throws the signal's reason once it is aborted. */
  async acquire(signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted()
    if (this.#numFree > 0) this.#numFree--
    else await this.#turn(signal)
    let isHeld = true
    return () => {
      if (isHeld) this.#release()
      isHeld = false
    }
  }

  #turn(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const take = () => {
        signal.removeEventListener('abort', leave)
        resolve()
      }
      const leave = () => {
        this.#waiting.splice(this.#waiting.indexOf(take), 1)
        reject(signal.reason)
      }
      this.#waiting.push(take)
      signal.addEventListener('abort', leave, { once: true })
    })
  }

  #release(): void {
    const next = this.#waiting.shift()
    if (next === undefined) this.#numFree++
    else next()
  }
}
