// Reads one JSON object of a native adapter key by key: numbers, words, and names of tensors. What is left unread refuses the adapter.

import { at } from '../../../core/invariant.ts'
import { show } from '../peft/config-fields.ts'
import type { Refuse } from '../peft/refuse.ts'
import type { NativeTensors } from './native-tensors.ts'

export interface Matrix {
  readonly values: Float32Array
  readonly shape: readonly number[]
}

export class EntryReader {
  /** Of the object, for messages: `program[3].gate`. */
  readonly path: string
  readonly refuse: Refuse
  readonly #tensors: NativeTensors
  readonly #object: Readonly<Record<string, unknown>>
  readonly #layer: number | null
  readonly #read = new Set<string>()
  readonly #children: EntryReader[] = []

  /** `layer` stands in for `{layer}` in names. */
  constructor(path: string, value: unknown, layer: number | null, tensors: NativeTensors, refuse: Refuse) {
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      throw refuse(path, `${show(value)} is not an object`)
    this.path = path
    this.refuse = refuse
    this.#object = value as Record<string, unknown>
    this.#layer = layer
    this.#tensors = tensors
  }

  field(key: string): string {
    return `${this.path}.${key}`
  }

  /** Null stands for both absent and null. */
  value(key: string): unknown {
    this.#read.add(key)
    return Object.hasOwn(this.#object, key) ? (this.#object[key] ?? null) : null
  }

  /** A tensor of `rank` dimensions. */
  tensor(key: string, rank: number): Matrix {
    const found = this.optionalTensor(key, rank)
    if (found === null) throw this.refuse(this.field(key), 'is missing; it names a tensor')
    return found
  }

  optionalTensor(key: string, rank: number): Matrix | null {
    const name = this.#name(key)
    if (name === null) return null
    const tensor = this.#tensors.read(name, this.field(key))
    if (tensor.shape.length === rank) return tensor
    throw this.refuse(name, `has ${tensor.shape.length} dimensions, and ${this.field(key)} needs ${rank}`)
  }

  /** Values of a vector. */
  vector(key: string): Float32Array {
    return this.tensor(key, 1).values
  }

  optionalVector(key: string): Float32Array | null {
    return this.optionalTensor(key, 1)?.values ?? null
  }

  integers(key: string): Int32Array {
    const name = this.#name(key)
    if (name === null) throw this.refuse(this.field(key), 'is missing; it names a tensor of integers')
    return this.#tensors.readIntegers(name, this.field(key))
  }

  optionalIntegers(key: string): Int32Array | null {
    return this.value(key) === null ? null : this.integers(key)
  }

  /** A number, or the name of a tensor of one value. */
  number(key: string, fallback: number | null = null): number {
    const value = this.value(key) ?? fallback
    if (typeof value === 'number' && Number.isFinite(value)) return value
    if (typeof value === 'string') {
      const { values } = this.#tensors.read(this.#expand(value), this.field(key))
      if (values.length === 1) return at([...values], 0)
    }
    throw this.refuse(this.field(key), `${show(value)} is neither a number nor the name of a tensor of one value`)
  }

  /** A positive whole number. */
  count(key: string): number {
    const value = this.value(key)
    if (typeof value === 'number' && Number.isInteger(value) && value > 0) return value
    throw this.refuse(this.field(key), `${show(value)} is not a positive whole number`)
  }

  optionalCount(key: string): number | null {
    return this.value(key) === null ? null : this.count(key)
  }

  flag(key: string, fallback: boolean): boolean {
    const value = this.value(key) ?? fallback
    if (typeof value === 'boolean') return value
    throw this.refuse(this.field(key), `${show(value)} is neither true nor false`)
  }

  word<T extends string>(key: string, allowed: readonly T[], fallback: T | null = null): T {
    const value = this.value(key) ?? fallback
    const found = allowed.find((word) => word === value)
    if (found === undefined) throw this.refuse(this.field(key), `${show(value)} is not one of ${allowed.join(', ')}`)
    return found
  }

  child(key: string): EntryReader {
    return this.#adopt(new EntryReader(this.field(key), this.value(key), this.#layer, this.#tensors, this.refuse))
  }

  optionalChild(key: string): EntryReader | null {
    return this.value(key) === null ? null : this.child(key)
  }

  children(key: string): readonly EntryReader[] {
    const value = this.value(key)
    if (!Array.isArray(value) || value.length === 0)
      throw this.refuse(this.field(key), `${show(value)} is not a list of objects`)
    return value.map((each: unknown, i) =>
      this.#adopt(new EntryReader(`${this.field(key)}[${i}]`, each, this.#layer, this.#tensors, this.refuse)),
    )
  }

  /** Refuses any key that nobody asked for, here and below. */
  finish(): void {
    const unknown = Object.keys(this.#object).find((key) => !this.#read.has(key))
    if (unknown !== undefined) throw this.refuse(this.field(unknown), 'is a key this server does not know')
    for (const child of this.#children) child.finish()
  }

  #adopt(child: EntryReader): EntryReader {
    this.#children.push(child)
    return child
  }

  #name(key: string): string | null {
    const value = this.value(key)
    if (value === null) return null
    if (typeof value !== 'string') throw this.refuse(this.field(key), `${show(value)} is not the name of a tensor`)
    return this.#expand(value)
  }

  #expand(name: string): string {
    return this.#layer === null ? name : name.replaceAll('{layer}', String(this.#layer))
  }
}
