// Bearer keys, the same for every protocol.

import { createHash, timingSafeEqual } from 'node:crypto'
import { LorikeetError } from '../../errors.ts'

export class ApiKeys {
  readonly #digests: readonly Buffer[]

  /** Without keys everybody may do everything. */
  constructor(keys: readonly string[]) {
    this.#digests = keys.map(digest)
  }

  get isOpen(): boolean {
    return this.#digests.length === 0
  }

  /** Takes `Bearer KEY`. Throws UNAUTHORIZED. */
  check(authorization: string | undefined): void {
    if (this.isOpen) return
    const key = /^bearer\s+(.+)$/i.exec(authorization ?? '')?.[1]
    if (key === undefined || !this.#isKnown(key)) throw new LorikeetError('UNAUTHORIZED')
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
