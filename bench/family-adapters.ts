// Random adapters of each family in the project's own format (docs/adapter-format.md), for the shapes of random-model.ts. Sizes are what
// papers and libraries use by default; values are small, so that outputs stay ordinary numbers.

import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { SafetensorsWriter } from '../src/model/safetensors-writer.ts'
import { type LlamaShape, layerLinears, SHAPES, type ShapeName } from './random-model.ts'

export const FAMILIES = ['lora', 'dora', 'vera', 'ia3', 'lokr', 'oft', 'bottleneck', 'prefix', 'delta'] as const

export type Family = (typeof FAMILIES)[number]

type Json = Record<string, unknown>

const RANK = 16
/** VeRA spends its parameters on two vectors and so takes large ranks. */
const VERA_RANK = 32
/** PEFT's default block size; smaller where it divides no input. */
const MAX_OFT_BLOCK = 32
const BOTTLENECK_SIZE = 64
const PREFIX_TOKENS = 16
/** Of each linear's weights. */
const DELTA_SHARE = 0.005

const STD = 0.02

interface Linear {
  readonly role: string
  readonly numOut: number
  readonly numIn: number
}

/** `self_attn.q_proj` is the site `q`. */
function linearsOf(shape: LlamaShape): readonly Linear[] {
  return layerLinears(shape).map(({ path, out, in: numIn }) => {
    return { role: path.replace(/^.*\.|_proj$/g, ''), numOut: out, numIn }
  })
}

/** Writes the adapter unless it is there; answers its folder. */
export function ensureFamilyAdapter(root: string, shapeName: ShapeName, family: Family, index: number): string {
  const dir = join(root, 'families', `${family}-${String(index).padStart(2, '0')}`)
  // The JSON file is written last: a folder without it is made anew.
  if (existsSync(join(dir, 'lorikeet_adapter.json'))) return dir
  mkdirSync(dir, { recursive: true })
  const writer = new SafetensorsWriter(join(dir, 'adapter.safetensors'))
  const json = new FamilyWriter(writer, SHAPES[shapeName], 1000 * FAMILIES.indexOf(family) + index).write(family)
  writer.finish()
  writeFileSync(join(dir, 'lorikeet_adapter.json'), JSON.stringify({ version: 1, kind: family, ...json }))
  return dir
}

class FamilyWriter {
  readonly #writer: SafetensorsWriter
  readonly #shape: LlamaShape
  #state: number

  constructor(writer: SafetensorsWriter, shape: LlamaShape, seed: number) {
    this.#writer = writer
    this.#shape = shape
    this.#state = Math.imul(seed + 1, 0x9e3779b1) | 0 || 1
  }

  write(family: Family): Json {
    switch (family) {
      case 'lora':
        return { program: this.#atLinears((site, linear) => [this.#lowRank(site, linear, RANK)]) }
      case 'vera':
        return { program: this.#atLinears((site, linear) => [this.#lowRank(site, linear, VERA_RANK)]) }
      case 'dora':
        return {
          program: this.#atLinears((site, linear) => [
            this.#lowRank(site, linear, RANK),
            { site, primitive: 'vector', slot: 'factor', values: this.#around1(`${site}.factor`, linear.numOut) },
          ]),
        }
      case 'ia3':
        return { program: this.#atLinears((site, linear) => this.#ia3(site, linear)) }
      case 'lokr':
        return { program: this.#atLinears((site, linear) => [this.#kron(site, linear)]) }
      case 'oft':
        return { program: this.#atLinears((site, linear) => [this.#rotate(site, linear)]) }
      case 'bottleneck':
        return { program: this.#layers().map((layer) => this.#bottleneck(`layers.${layer}.mlpOut`)) }
      case 'delta':
        return { program: this.#atLinears((site, linear) => [this.#sparse(site, linear)]) }
      case 'prefix':
        return { program: [], virtualTokens: this.#prefix() }
    }
  }

  #layers(): readonly number[] {
    return Array.from({ length: this.#shape.numLayers }, (_, layer) => layer)
  }

  #atLinears(entriesOf: (site: string, linear: Linear) => readonly Json[]): readonly Json[] {
    return this.#layers().flatMap((layer) =>
      linearsOf(this.#shape).flatMap((linear) => entriesOf(`layers.${layer}.${linear.role}`, linear)),
    )
  }

  #lowRank(site: string, { numOut, numIn }: Linear, rank: number): Json {
    return {
      site,
      primitive: 'low-rank',
      a: this.#random(`${site}.a`, [rank, numIn]),
      b: this.#random(`${site}.b`, [numOut, rank]),
    }
  }

  #ia3(site: string, { role, numOut, numIn }: Linear): readonly Json[] {
    if (role === 'k' || role === 'v') {
      return [{ site, primitive: 'vector', slot: 'output-scale', values: this.#around1(`${site}.l`, numOut) }]
    }
    return role === 'down'
      ? [{ site, primitive: 'vector', slot: 'input-scale', values: this.#around1(`${site}.l`, numIn) }]
      : []
  }

  #kron(site: string, { numOut, numIn }: Linear): Json {
    // LoKr's split: near the root.
    const [a, b] = [largestDivisor(numOut, Math.sqrt(numOut)), largestDivisor(numIn, Math.sqrt(numIn))]
    return {
      site,
      primitive: 'kron',
      left: this.#random(`${site}.left`, [a, b]),
      right: this.#random(`${site}.right`, [numOut / a, numIn / b]),
    }
  }

  /** Rotations in planes: exactly orthogonal, and as dear as any block of their size. */
  #rotate(site: string, { numIn }: Linear): Json {
    const size = largestDivisor(numIn, MAX_OFT_BLOCK)
    const numBlocks = numIn / size
    const blocks = new Float32Array(numIn * size)
    for (let block = 0; block < numBlocks; block++) {
      const angle = this.#next() * STD
      const at = block * size * size
      for (let i = 0; i < size; i++) blocks[at + i * size + i] = i < 2 ? Math.cos(angle) : 1
      blocks[at + 1] = Math.sin(angle)
      blocks[at + size] = -Math.sin(angle)
    }
    this.#writer.add(`${site}.blocks`, [numBlocks, size, size], blocks)
    return { site, primitive: 'rotate', blocks: `${site}.blocks` }
  }

  #bottleneck(site: string): Json {
    const { hiddenSize } = this.#shape
    return {
      site,
      primitive: 'bottleneck',
      input: 'sum',
      activation: 'relu',
      down: this.#random(`${site}.down`, [BOTTLENECK_SIZE, hiddenSize]),
      downBias: this.#random(`${site}.downBias`, [BOTTLENECK_SIZE]),
      up: this.#random(`${site}.up`, [hiddenSize, BOTTLENECK_SIZE]),
      upBias: this.#random(`${site}.upBias`, [hiddenSize]),
    }
  }

  #sparse(site: string, { numOut, numIn }: Linear): Json {
    const perRow = Math.max(1, Math.round(numIn * DELTA_SHARE))
    const step = Math.floor(numIn / perRow)
    const rowStarts = Int32Array.from({ length: numOut + 1 }, (_, row) => row * perRow)
    const columns = Int32Array.from(
      { length: numOut * perRow },
      (_, i) => (i % perRow) * step + (Math.floor(i / perRow) % step),
    )
    this.#writer.add(`${site}.rowStarts`, [rowStarts.length], rowStarts)
    this.#writer.add(`${site}.columns`, [columns.length], columns)
    return {
      site,
      primitive: 'sparse',
      rowStarts: `${site}.rowStarts`,
      columns: `${site}.columns`,
      values: this.#random(`${site}.values`, [columns.length]),
    }
  }

  #prefix(): Json {
    const width = this.#shape.numKvHeads * this.#shape.headDim
    for (const layer of this.#layers()) {
      this.#random(`keys.${layer}`, [PREFIX_TOKENS, width])
      this.#random(`values.${layer}`, [PREFIX_TOKENS, width])
    }
    return { kind: 'prefix', keys: 'keys.{layer}', values: 'values.{layer}' }
  }

  #random(name: string, dims: readonly number[]): string {
    const values = new Float32Array(dims.reduce((product, size) => product * size, 1))
    for (let i = 0; i < values.length; i++) values[i] = this.#next() * STD * Math.sqrt(3)
    this.#writer.add(name, dims, values)
    return name
  }

  #around1(name: string, length: number): string {
    const values = Float32Array.from({ length }, () => 1 + this.#next() * STD)
    this.#writer.add(name, [length], values)
    return name
  }

  /** Uniform in [-1, 1): xorshift32 (Marsaglia, 2003). */
  #next(): number {
    let state = this.#state
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    this.#state = state
    return state / 2 ** 31
  }
}

function largestDivisor(size: number, most: number): number {
  let divisor = Math.floor(most)
  while (size % divisor !== 0) divisor--
  return divisor
}
