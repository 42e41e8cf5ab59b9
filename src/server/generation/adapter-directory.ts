// The filesystem resolver: an unknown model name is looked up as a directory and loaded at its first use.

import { realpath, stat } from 'node:fs/promises'
import { basename, join, sep } from 'node:path'
import type { AdapterInfo } from '../../engine/messages.ts'
import { LorikeetError } from '../../errors.ts'
import type { EnginePort } from './engine-port.ts'
import type { KeyedLock } from './keyed-lock.ts'

// `org/name` is common on hubs; nothing legitimate is deeper or starts with a dot.
const SAFE_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}(?:\/[A-Za-z0-9][A-Za-z0-9._-]{0,127}){0,3}$/
// Long enough that a client in a retry loop costs no disk reads, short enough that a copied-in adapter appears at once.
const ABSENT_TTL_MS = 2000
// Names are the clients' choice, so the memory for absent ones is bounded.
const MAX_ABSENT = 1024

export class AdapterDirectory {
  readonly #engine: EnginePort
  readonly #root: string
  readonly #lock: KeyedLock
  readonly #now: () => number
  /** Name to the time until which it counts as absent, in insertion order. */
  readonly #absentUntilMs = new Map<string, number>()

  constructor(engine: EnginePort, root: string, lock: KeyedLock, now: () => number = Date.now) {
    this.#engine = engine
    this.#root = root
    this.#lock = lock
    this.#now = now
  }

  /** Loads `<root>/<name>`; null when there is none. Throws what the loader says about one that is there. */
  async load(name: string): Promise<AdapterInfo | null> {
    if (!SAFE_NAME.test(name) || this.#isKnownAbsent(name)) return null
    return this.#lock.run(name, async () => {
      // Whoever held the lock before may have loaded it.
      const loaded = this.#engine.findAdapter(name)
      if (loaded !== null || this.#isKnownAbsent(name)) return loaded
      const path = await this.#locate(name)
      if (path === null) return this.#rememberAbsent(name)
      try {
        return await this.#engine.loadAdapter({ name, path }, false)
      } catch (error) {
        if (error instanceof LorikeetError && error.code === 'ADAPTER_NOT_FOUND') return this.#rememberAbsent(name)
        throw withoutDirectory(error)
      }
    })
  }

  /** The real directory of `name`, null when absent or when a link leads out of the root. */
  async #locate(name: string): Promise<string | null> {
    try {
      const root = await realpath(this.#root)
      const path = await realpath(join(root, name))
      return path.startsWith(root + sep) && (await stat(path)).isDirectory() ? path : null
    } catch {
      return null
    }
  }

  #isKnownAbsent(name: string): boolean {
    const untilMs = this.#absentUntilMs.get(name)
    if (untilMs === undefined) return false
    if (untilMs > this.#now()) return true
    this.#absentUntilMs.delete(name)
    return false
  }

  #rememberAbsent(name: string): null {
    this.#absentUntilMs.set(name, this.#now() + ABSENT_TTL_MS)
    if (this.#absentUntilMs.size > MAX_ABSENT) {
      const oldest = this.#absentUntilMs.keys().next()
      if (!oldest.done) this.#absentUntilMs.delete(oldest.value)
    }
    return null
  }
}

/** A client that sent a name is not told where on disk it led. */
function withoutDirectory(error: unknown): unknown {
  if (!(error instanceof LorikeetError) || error.code !== 'SAFETENSORS_INVALID') return error
  return new LorikeetError(error.code, { ...error.params, file: basename(String(error.params['file'])) }, { cause: error })
}
