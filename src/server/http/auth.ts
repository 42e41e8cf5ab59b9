// Bearer keys. Routes that cost nothing and change nothing stay open, so that probes and scrapers need no key.

import { createHash, timingSafeEqual } from 'node:crypto'
import { LorikeetError } from '../../errors.ts'

const OPEN_PATHS: ReadonlySet<string> = new Set(['/health', '/ping', '/version', '/openapi.json'])

export class Auth {
  readonly #digests: readonly Buffer[]
  readonly #isMetricsGuarded: boolean

  /** Without keys everybody may do everything. */
  constructor(apiKeys: readonly string[], isMetricsGuarded: boolean) {
    this.#digests = apiKeys.map(digest)
    this.#isMetricsGuarded = isMetricsGuarded
  }

  /** Throws UNAUTHORIZED unless the request may go on. `url` may carry a query. */
  check(method: string, url: string, authorization: string | undefined): void {
    if (this.#digests.length === 0 || method === 'OPTIONS' || this.#isOpen(url)) return
    const key = /^bearer\s+(.+)$/i.exec(authorization ?? '')?.[1]
    if (key === undefined || !this.#isKnown(key)) throw new LorikeetError('UNAUTHORIZED')
  }

  #isOpen(url: string): boolean {
    const path = url.split('?', 1)[0] as string
    return OPEN_PATHS.has(path) || (path === '/metrics' && !this.#isMetricsGuarded)
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
