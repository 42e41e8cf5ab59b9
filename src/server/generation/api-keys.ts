// Bearer keys, the same for every protocol.

import { createHash, timingSafeEqual } from 'node:crypto'
import { LorikeetError } from '../../errors.ts'

export class ApiKeys {
  readonly #digests: readonly Buffer[]
  readonly #onRefused: (error: LorikeetError) => void

  /** Without keys everybody may do everything. */
  constructor(keys: readonly string[], onRefused: (error: LorikeetError) => void = () => {}) {
    this.#digests = keys.map(digest)
    this.#onRefused = onRefused
  }

  get isOpen(): boolean {
    return this.#digests.length === 0
  }

  /** Takes `Bearer KEY`. Throws UNAUTHORIZED. */
  check(authorization: string | undefined): void {
    if (this.isOpen) return
    const key = /^bearer\s+(.+)$/i.exec(authorization ?? '')?.[1]
    if (key !== undefined && this.#isKnown(key)) return
    const error = new LorikeetError('UNAUTHORIZED')
    this.#onRefused(error)
    throw error
  }

  /** Digests have one length, and every key is compared, so that time tells nothing. */
  #isKnown(key: string): boolean {
    const offered = digest(key)
    let isKnown = false
    for (const known of this.#digests) isKnown = timingSafeEqual(known, offered) || isKnown
    return isKnown
  }
}

function digest(key: string): Buffer {
  return createHash('sha256').update(key).digest()
}
