// Reads adapter_config.json key by key and remembers what was read, so that a key nobody honours cannot be dropped silently:
// the reference library ignores unknown keys, a server that does so serves something else than was trained.

import type { Refuse } from './refuse.ts'

/** Keys that say nothing about the function computed, whatever the type. */
const INERT_KEYS = [
  'auto_mapping',
  'base_model_name_or_path',
  'inference_mode',
  'peft_type',
  'peft_version',
  'revision',
  'runtime_config',
] as const

export class ConfigFields {
  readonly #config: Readonly<Record<string, unknown>>
  readonly #refuse: Refuse
  readonly #read = new Set<string>(INERT_KEYS)

  constructor(config: Readonly<Record<string, unknown>>, refuse: Refuse) {
    this.#config = config
    this.#refuse = refuse
  }

  /** The raw value; null stands for both absent and null. */
  value(key: string): unknown {
    this.#read.add(key)
    return Object.hasOwn(this.#config, key) ? (this.#config[key] ?? null) : null
  }

  /** These keys matter in training only. */
  ignore(keys: readonly string[]): void {
    for (const key of keys) this.#read.add(key)
  }

  /** A key every writer stores: its absence means a foreign file, whose scale would be a guess. */
  number(key: string): number {
    const value = this.value(key)
    if (value === null) throw this.#refuse(key, 'missing; every PEFT writer stores it')
    if (typeof value !== 'number' || !Number.isFinite(value)) throw this.#refuse(key, `${show(value)} is not a number`)
    return value
  }

  /** Python's truth of a flag. */
  flag(key: string): boolean {
    const value = this.value(key)
    if (value === null || value === false) return false
    if (value !== true) throw this.#refuse(key, `${show(value)} is neither true nor false`)
    return true
  }

  oneOf<T extends string>(key: string, allowed: readonly T[], fallback: T): T {
    const value = this.value(key) ?? fallback
    const found = allowed.find((candidate) => candidate === value)
    if (found === undefined) throw this.#refuse(key, `${show(value)} is not one of ${allowed.join(', ')}`)
    return found
  }

  /** Absent, null and [] are null. */
  stringList(key: string): readonly string[] | null {
    const value = this.value(key)
    if (value === null) return null
    if (!isStringList(value)) throw this.#refuse(key, `${show(value)} is not a list of strings`)
    if (value.includes('')) throw this.#refuse(key, 'holds an empty name, which would match every module')
    return value.length === 0 ? null : value
  }

  /** A list of names or one regular expression; absent, null, [] and '' are null. */
  names(key: string): readonly string[] | string | null {
    const value = this.value(key)
    if (typeof value === 'string') return value === '' ? null : value
    return this.stringList(key)
  }

  /** In file order; absent and null are empty. */
  numberMap(key: string): ReadonlyMap<string, number> {
    const value = this.value(key)
    if (value === null) return new Map()
    if (typeof value !== 'object' || Array.isArray(value)) throw this.#refuse(key, `${show(value)} is not an object of numbers`)
    const map = new Map<string, number>()
    for (const [pattern, number] of Object.entries(value)) {
      if (typeof number !== 'number' || !Number.isFinite(number)) {
        throw this.#refuse(`${key}.${pattern}`, `${show(number)} is not a number`)
      }
      map.set(pattern, number)
    }
    return map
  }

  tokenIds(key: string, vocabSize: number): readonly number[] {
    return this.checkTokenIds(key, this.value(key), vocabSize)
  }

  checkTokenIds(field: string, value: unknown, vocabSize: number): readonly number[] {
    if (!Array.isArray(value) || value.length === 0) throw this.#refuse(field, `${show(value)} is not a list of token ids`)
    for (const id of value) {
      if (!Number.isInteger(id) || id < 0 || id >= vocabSize) {
        throw this.#refuse(field, `${show(id)} is not a token id of this model (0 to ${vocabSize - 1})`)
      }
    }
    return value as number[]
  }

  /** Refuses the key when it is set, saying why. */
  mustBeUnset(key: string, reason: string): void {
    if (isTruthy(this.value(key))) throw this.#refuse(key, reason)
  }

  /** Refuses any set key that nobody asked for. */
  finish(): void {
    for (const [key, value] of Object.entries(this.#config)) {
      if (!this.#read.has(key) && isTruthy(value)) {
        throw this.#refuse(key, `${show(value)} is an option this server does not know, and it may change the outputs`)
      }
    }
  }
}

/** Python's truth value of what JSON can hold. */
function isTruthy(value: unknown): boolean {
  if (Array.isArray(value)) return value.length > 0
  if (typeof value === 'object' && value !== null) return Object.keys(value).length > 0
  return Boolean(value)
}

/** A config value short enough for a message. */
export function show(value: unknown): string {
  const maxChars = 80
  const text = JSON.stringify(value) ?? String(value)
  return text.length > maxChars ? `${text.slice(0, maxChars)}…` : text
}

function isStringList(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'string')
}
