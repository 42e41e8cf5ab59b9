import { LorikeetError } from '../errors.ts'

export type JsonObject = Readonly<Record<string, unknown>>

/**
 * Typed reads of a model's config.json. Null counts as absent, as transformers writes it so.
 * A wrong type throws MODEL_INVALID; a value whose maths is not served throws MODEL_UNSUPPORTED.
 */
export class ConfigReader {
  readonly #values: JsonObject
  /** Dotted path before field names in messages. */
  readonly #prefix: string

  constructor(values: JsonObject, prefix = '') {
    this.#values = values
    this.#prefix = prefix
  }

  has(field: string): boolean {
    return this.#value(field) !== undefined
  }

  /** Without a fallback the field is required. */
  count(field: string, fallback?: number): number {
    const value = this.#value(field) ?? fallback
    if (!Number.isSafeInteger(value) || (value as number) < 1) throw this.#invalid(field, 'a positive integer')
    return value as number
  }

  number(field: string, fallback?: number): number {
    const value = this.#value(field) ?? fallback
    if (typeof value !== 'number' || !Number.isFinite(value)) throw this.#invalid(field, 'a finite number')
    return value
  }

  positive(field: string, fallback?: number): number {
    const value = this.number(field, fallback)
    if (value <= 0) throw this.#invalid(field, 'a number above 0')
    return value
  }

  boolean(field: string, fallback: boolean): boolean {
    const value = this.#value(field) ?? fallback
    if (typeof value !== 'boolean') throw this.#invalid(field, 'true or false')
    return value
  }

  string(field: string, fallback?: string): string {
    const value = this.#value(field) ?? fallback
    if (typeof value !== 'string') throw this.#invalid(field, 'a string')
    return value
  }

  countOrNull(field: string): number | null {
    return this.has(field) ? this.count(field) : null
  }

  positiveOrNull(field: string): number | null {
    return this.has(field) ? this.positive(field) : null
  }

  strings(field: string): readonly string[] | null {
    const value = this.#value(field)
    if (value === undefined) return null
    if (!Array.isArray(value) || !value.every((item) => typeof item === 'string')) {
      throw this.#invalid(field, 'a list of strings')
    }
    return value
  }

  /** A list of non-negative integers, or one such integer. */
  integers(field: string): readonly number[] {
    const value = this.#value(field)
    const list = value === undefined ? [] : Array.isArray(value) ? value : [value]
    if (!list.every((item) => Number.isSafeInteger(item) && item >= 0)) {
      throw this.#invalid(field, 'non-negative integers')
    }
    return list
  }

  object(field: string): ConfigReader | null {
    const value = this.#value(field)
    if (value === undefined) return null
    if (typeof value !== 'object' || Array.isArray(value)) throw this.#invalid(field, 'an object')
    return new ConfigReader(value as JsonObject, `${this.#prefix}${field}.`)
  }

  /** Refuses any value but absent, null and those of `served`. */
  requireOneOf(field: string, served: readonly unknown[], hint: string): void {
    const value = this.#value(field)
    if (value !== undefined && !served.includes(value)) throw this.unsupported(field, hint)
  }

  unsupported(field: string, hint: string): LorikeetError {
    const value = JSON.stringify(this.#value(field) ?? null)
    return new LorikeetError('MODEL_UNSUPPORTED', { field: this.#prefix + field, value, hint })
  }

  #value(field: string): unknown {
    return (Object.hasOwn(this.#values, field) ? this.#values[field] : undefined) ?? undefined
  }

  #invalid(field: string, wanted: string): LorikeetError {
    const found = JSON.stringify(this.#value(field) ?? null)
    return new LorikeetError('MODEL_INVALID', {
      reason: `config.json: ${this.#prefix}${field} must be ${wanted}, found ${found}`,
    })
  }
}
