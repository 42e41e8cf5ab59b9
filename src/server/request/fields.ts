// Request bodies as tables of fields: one table validates, and describes itself for /openapi.json. Nothing is coerced.

import { isJsonObject, type JsonObject } from '../../core/json.ts'
import { LorikeetError } from '../../errors.ts'

export interface Field<T> {
  /** JSON schema of the value, `null` aside. */
  readonly schema: JsonObject
  readonly isRequired: boolean
  /** Value when the field is absent or null. */
  readonly fallback: T
  /** Checks a value that is neither undefined nor null; throws FIELD_INVALID or FIELD_UNSUPPORTED naming `path`. */
  readonly read: (value: unknown, path: string) => T
}

export type FieldTable = Readonly<Record<string, Field<unknown>>>
export type FieldValues<Table extends FieldTable> = {
  readonly [Name in keyof Table]: Table[Name] extends Field<infer T> ? T : never
}

/** Reads every field of `table` from `body`; other members are ignored. `prefix` leads the paths in errors. */
export function readFields<Table extends FieldTable>(table: Table, body: JsonObject, prefix = ''): FieldValues<Table> {
  const values: Record<string, unknown> = {}
  for (const [name, field] of Object.entries(table)) {
    const value = Object.hasOwn(body, name) ? body[name] : undefined
    if (value !== undefined && value !== null) values[name] = field.read(value, prefix + name)
    else if (field.isRequired) throw fieldInvalid(prefix + name, 'is required')
    else values[name] = field.fallback
  }
  return values as FieldValues<Table>
}

export function fieldInvalid(field: string, reason: string): LorikeetError {
  return new LorikeetError('FIELD_INVALID', { field, reason })
}

export function fieldUnsupported(field: string, reason: string): LorikeetError {
  return new LorikeetError('FIELD_UNSUPPORTED', { field, reason })
}

function field<T>(schema: JsonObject, fallback: T, read: (value: unknown, path: string) => T): Field<T> {
  return { schema, isRequired: false, fallback, read }
}

export function required<T>(inner: Field<T | null>): Field<T> {
  const read = (value: unknown, path: string): T => {
    const result = inner.read(value, path)
    if (result === null) throw fieldInvalid(path, 'is required')
    return result
  }
  // The fallback is never used: `readFields` throws first.
  return { schema: inner.schema, isRequired: true, fallback: undefined as T, read }
}

export interface Range {
  readonly min?: number
  readonly max?: number
  /** The minimum itself is not allowed. */
  readonly isMinExclusive?: boolean
}

export function integer<T extends number | null>(fallback: T, range: Range = {}): Field<number | T> {
  const expectation = describe('an integer', range)
  return field<number | T>({ type: 'integer', ...rangeSchema(range) }, fallback, (value, path) => {
    if (typeof value !== 'number' || !Number.isInteger(value)) throw fieldInvalid(path, `must be ${expectation}`)
    // JSON.parse has already rounded what is beyond 2^53, so the value that was sent is not known any more.
    if (!Number.isSafeInteger(value)) throw fieldInvalid(path, 'must lie within ±9007199254740991')
    if (!isInside(value, range)) throw fieldInvalid(path, `must be ${expectation}`)
    return value
  })
}

export function number<T extends number | null>(fallback: T, range: Range = {}): Field<number | T> {
  const expectation = describe('a number', range)
  return field<number | T>({ type: 'number', ...rangeSchema(range) }, fallback, (value, path) => {
    if (typeof value !== 'number' || !Number.isFinite(value) || !isInside(value, range)) {
      throw fieldInvalid(path, `must be ${expectation}`)
    }
    return value
  })
}

export function boolean(fallback: boolean): Field<boolean> {
  return field({ type: 'boolean', default: fallback }, fallback, (value, path) => {
    if (typeof value !== 'boolean') throw fieldInvalid(path, 'must be true or false')
    return value
  })
}

export function string(options: { isEmptyAllowed?: boolean } = {}): Field<string | null> {
  const isEmptyAllowed = options.isEmptyAllowed ?? true
  return field<string | null>({ type: 'string', ...(isEmptyAllowed ? {} : { minLength: 1 }) }, null, (value, path) => {
    if (typeof value !== 'string') throw fieldInvalid(path, 'must be a string')
    if (value === '' && !isEmptyAllowed) throw fieldInvalid(path, 'must not be empty')
    return value
  })
}

export function oneOf<const Choice extends string>(choices: readonly Choice[]): Field<Choice | null> {
  return field<Choice | null>({ type: 'string', enum: choices }, null, (value, path) => {
    const found = choices.find((choice) => choice === value)
    if (found === undefined) throw fieldInvalid(path, `must be one of ${choices.join(', ')}`)
    return found
  })
}

// Nothing a request lists is longer than the largest vocabularies, and each entry costs time on the thread that serves all.
const MAX_ITEMS = 262_144

/** A list; absent reads as the empty list. */
export function list<T>(item: Field<T | null>, options: { minItems?: number; maxItems?: number } = {}): Field<readonly T[]> {
  const { minItems = 0, maxItems = MAX_ITEMS } = options
  const schema = { type: 'array', items: item.schema, ...options }
  return field<readonly T[]>(schema, [], (value, path) => {
    if (!Array.isArray(value)) throw fieldInvalid(path, 'must be a list')
    if (value.length < minItems) throw fieldInvalid(path, `must have at least ${minItems} entries`)
    if (value.length > maxItems) throw fieldInvalid(path, `must have at most ${maxItems} entries`)
    return value.map((entry: unknown, index) => {
      const read = entry === null || entry === undefined ? null : item.read(entry, `${path}[${index}]`)
      if (read === null) throw fieldInvalid(`${path}[${index}]`, 'must not be null')
      return read
    })
  })
}

export function nullable<T>(inner: Field<T>): Field<T | null> {
  return { ...inner, fallback: null }
}

export function object(): Field<JsonObject | null> {
  return field<JsonObject | null>({ type: 'object', additionalProperties: true }, null, (value, path) => {
    if (!isJsonObject(value)) throw fieldInvalid(path, 'must be an object')
    return value
  })
}

/** An object with fields of its own; absent reads as all its fallbacks. */
export function record<Table extends FieldTable>(table: Table): Field<FieldValues<Table> | null> {
  return field<FieldValues<Table> | null>(tableSchema(table), null, (value, path) => {
    if (!isJsonObject(value)) throw fieldInvalid(path, 'must be an object')
    return readFields(table, value, `${path}.`)
  })
}

/** A value with rules of its own. */
export function custom<T>(schema: JsonObject, fallback: T, read: (value: unknown, path: string) => T): Field<T> {
  return field(schema, fallback, read)
}

/** Known to other servers, not built here: refused unless it asks for nothing. */
export function unsupported(reason: string, isInert: (value: unknown) => boolean = () => false): Field<null> {
  return field<null>({ description: `Not supported: ${reason}` }, null, (value, path) => {
    if (!isInert(value)) throw fieldUnsupported(path, reason)
    return null
  })
}

/** Accepted whatever it holds, without effect on the output. */
export function ignored(): Field<null> {
  return field<null>({ description: 'Accepted and ignored.' }, null, () => null)
}

/** JSON schema of a whole table. */
export function tableSchema(table: FieldTable): JsonObject {
  const names = Object.keys(table)
  const requiredNames = names.filter((name) => table[name]?.isRequired)
  return {
    type: 'object',
    properties: Object.fromEntries(names.map((name) => [name, fieldSchema(table[name] as Field<unknown>)])),
    ...(requiredNames.length === 0 ? {} : { required: requiredNames }),
    additionalProperties: true,
  }
}

/** OpenAPI 3.1: `null` stands for absent in every optional field. */
function fieldSchema(entry: Field<unknown>): JsonObject {
  if (entry.isRequired || entry.schema['type'] === undefined) return entry.schema
  if (typeof entry.schema['type'] === 'string' && entry.schema['enum'] === undefined) {
    return { ...entry.schema, type: [entry.schema['type'], 'null'] }
  }
  return { anyOf: [entry.schema, { type: 'null' }] }
}

function isInside(value: number, range: Range): boolean {
  if (range.min !== undefined && (range.isMinExclusive ? value <= range.min : value < range.min)) return false
  return range.max === undefined || value <= range.max
}

function describe(noun: string, { min, max, isMinExclusive }: Range): string {
  if (min === undefined) return max === undefined ? noun : `${noun} of at most ${max}`
  const lower = isMinExclusive ? `over ${min}` : `of at least ${min}`
  return max === undefined ? `${noun} ${lower}` : `${noun} ${lower} and at most ${max}`
}

function rangeSchema({ min, max, isMinExclusive }: Range): JsonObject {
  return {
    ...(min === undefined ? {} : isMinExclusive ? { exclusiveMinimum: min } : { minimum: min }),
    ...(max === undefined ? {} : { maximum: max }),
  }
}
