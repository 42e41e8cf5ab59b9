// Weighted sums of adapters that requests ask for. Each is an adapter of its own to the engine, made at its first use and dropped when
// others are asked for more recently; which generations of its members it holds is part of its name, so a replaced member is never mixed up.

import type { AdapterInfo } from '../../engine/messages.ts'
import { LorikeetError } from '../../errors.ts'
import type { EnginePort } from './engine-port.ts'
import type { KeyedLock } from './keyed-lock.ts'

export interface WeightedAdapter {
  readonly adapter: AdapterInfo
  readonly weight: number
}

/** Mixtures kept ready. Each holds its members' weights once more in host memory, so it is a small multiple of what one step can use. */
const MAX_MIXTURES = 64

/** Of a digest: enough to tell generations of one name apart in a log. */
const DIGEST_CHARS = 8

export class AdapterMixtures {
  readonly #engine: EnginePort
  readonly #lock: KeyedLock
  /** Names, least recently used first. */
  readonly #used = new Set<string>()

  constructor(engine: EnginePort, lock: KeyedLock) {
    this.#engine = engine
    this.#lock = lock
  }

  /** The sum of several adapters; one adapter with weight 1 is itself. Throws ADAPTER_REFUSED where they cannot be summed. */
  async find(members: readonly WeightedAdapter[], field: string): Promise<AdapterInfo> {
    const [only, second] = members
    if (only !== undefined && second === undefined && only.weight === 1) return only.adapter
    const name = members.map(nameOf).join(' + ')
    return this.#lock.run(name, async () => {
      const found = this.#engine.findAdapter(name) ?? (await this.#load(name, members, field))
      this.#used.delete(name)
      this.#used.add(name)
      await this.#dropOldest()
      return found
    })
  }

  async #load(name: string, members: readonly WeightedAdapter[], field: string): Promise<AdapterInfo> {
    const sources = members.map(({ adapter: { path, digest }, weight }) => ({ path, digest, weight }))
    try {
      return await this.#engine.loadAdapter({ name, path: '', members: sources }, false)
    } catch (thrown) {
      if (!(thrown instanceof LorikeetError) || thrown.code !== 'ADAPTER_REFUSED') throw thrown
      throw new LorikeetError('ADAPTER_REFUSED', thrown.params, { field, cause: thrown })
    }
  }

  /** Requests that run on one finish on it. */
  async #dropOldest(): Promise<void> {
    for (const name of this.#used) {
      if (this.#used.size <= MAX_MIXTURES) return
      this.#used.delete(name)
      if (this.#engine.findAdapter(name) !== null) await this.#engine.unloadAdapter(name)
    }
  }
}

function nameOf({ adapter: { name, digest }, weight }: WeightedAdapter): string {
  return `${name}@${digest.slice(0, DIGEST_CHARS)}*${weight}`
}
