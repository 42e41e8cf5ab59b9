// A method as the oracle knows it: its formula on the float64 decoder, and its file as a user would write one.

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createRandom, randomArray } from '../random-adapter.ts'
import { f32, type TensorData, tempDir, writeSafetensors } from '../safetensors-file.ts'
import type { OracleAdapter } from './decoder.ts'
import type { Matrix, Row } from './linear-algebra.ts'

export interface OracleMethod {
  readonly name: string
  readonly adapter: OracleAdapter
  /** Returns the directory. */
  readonly write: () => string
}

/** Random float32 numbers as the oracle reads them, so that file and formula start from the same values. */
export class Draw {
  readonly #random: () => number

  constructor(seed: number) {
    this.#random = createRandom(seed)
  }

  row(length: number, spread: number, center = 0): number[] {
    return [...randomArray(this.#random, length, spread, center)]
  }

  matrix(numRows: number, numColumns: number, spread: number): number[][] {
    return Array.from({ length: numRows }, () => this.row(numColumns, spread))
  }
}

/** One value for each key, made when it is first asked for. */
export function memo<T>(make: (key: string) => T): (key: string) => T {
  const made = new Map<string, T>()
  return (key) => {
    const known = made.get(key) ?? make(key)
    made.set(key, known)
    return known
  }
}

type Json = Record<string, unknown>

/** A program under construction (docs/adapter-format.md). */
export class Program {
  readonly #entries: Json[] = []
  readonly #tensors: Record<string, TensorData> = {}
  #virtualTokens: Json | null = null

  /** Returns the name, for the entry that reads it. */
  tensor(values: Matrix | Row): string {
    const name = `t${Object.keys(this.#tensors).length}`
    this.named(name, values)
    return name
  }

  named(name: string, values: Matrix | Row): void {
    const isMatrix = Array.isArray(values[0])
    const shape = isMatrix ? [values.length, (values[0] as Row).length] : [values.length]
    this.#tensors[name] = f32(shape, values.flat() as number[])
  }

  integers(values: readonly number[]): string {
    const name = `t${Object.keys(this.#tensors).length}`
    this.#tensors[name] = { dtype: 'I32', shape: [values.length], data: new Uint8Array(Int32Array.from(values).buffer) }
    return name
  }

  add(site: string, primitive: string, fields: Json): void {
    this.#entries.push({ site, primitive, ...fields })
  }

  lowRank(site: string, a: Matrix, b: Matrix, scale = 1): void {
    this.add(site, 'low-rank', { a: this.tensor(a), b: this.tensor(b), scale })
  }

  vector(site: string, slot: string, values: Row): void {
    this.add(site, 'vector', { slot, values: this.tensor(values) })
  }

  softPrompt(rows: Matrix, layerRows: readonly Matrix[] | null = null): void {
    this.#virtualTokens = { kind: 'soft-prompt', rows: this.tensor(rows) }
    if (layerRows === null) return
    for (const [layer, values] of layerRows.entries()) this.named(`layerRows.${layer}`, values)
    this.#virtualTokens['layerRows'] = 'layerRows.{layer}'
  }

  prefix(layers: readonly { readonly keys: Matrix; readonly values: Matrix }[]): void {
    for (const [layer, { keys, values }] of layers.entries()) {
      this.named(`keys.${layer}`, keys)
      this.named(`values.${layer}`, values)
    }
    this.#virtualTokens = { kind: 'prefix', keys: 'keys.{layer}', values: 'values.{layer}' }
  }

  write(kind: string, dir = join(tempDir(), 'native')): string {
    mkdirSync(dir, { recursive: true })
    const head = { version: 1, kind, program: this.#entries }
    const file = this.#virtualTokens === null ? head : { ...head, virtualTokens: this.#virtualTokens }
    writeFileSync(join(dir, 'lorikeet_adapter.json'), JSON.stringify(file))
    writeSafetensors(join(dir, 'adapter.safetensors'), this.#tensors)
    return dir
  }
}

/** A mixture of the weights of one program a member. */
export function writeMixture(name: string, weights: readonly number[], programOf: (member: number) => Program): string {
  const root = tempDir()
  const members = weights.map((weight, i) => {
    programOf(i).write('member', join(root, `member${i}`))
    return { path: `../member${i}`, weight }
  })
  const dir = join(root, 'mixture')
  mkdirSync(dir)
  writeFileSync(
    join(dir, 'lorikeet_mixture.json'),
    JSON.stringify({ version: 1, kind: name, combine: 'average-weights', members }),
  )
  return dir
}
