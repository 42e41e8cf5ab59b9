// Which routes ask for a key. Those that cost nothing and change nothing stay open, so that probes and scrapers need none.

import type { ApiKeys } from '../generation/api-keys.ts'

const OPEN_PATHS: ReadonlySet<string> = new Set(['/health', '/ping', '/startup', '/version', '/openapi.json'])

export class Auth {
  readonly #keys: ApiKeys
  readonly #isMetricsGuarded: boolean

  constructor(keys: ApiKeys, isMetricsGuarded: boolean) {
    this.#keys = keys
    this.#isMetricsGuarded = isMetricsGuarded
  }

  /** Throws UNAUTHORIZED unless the request may go on. `url` may carry a query. */
  check(method: string, url: string, authorization: string | undefined): void {
    if (method !== 'OPTIONS' && !this.#isOpen(method, url)) this.#keys.check(authorization)
  }

  #isOpen(method: string, url: string): boolean {
    const path = url.split('?', 1)[0] as string
    // The console's page asks for the key itself. POST / is another route.
    const isConsole = (method === 'GET' || method === 'HEAD') && (path === '/' || path.startsWith('/console/'))
    return isConsole || OPEN_PATHS.has(path) || (path === '/metrics' && !this.#isMetricsGuarded)
  }
}
