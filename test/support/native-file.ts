// Writes a compiled adapter in the project's own format (docs/adapter-format.md), one entry a primitive.

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { CompiledAdapter } from '../../src/adapter/primitive.ts'
import { SafetensorsWriter } from '../../src/model/safetensors-writer.ts'
import { tempDir } from './safetensors-file.ts'

type Json = Record<string, unknown>
type Numbers = Readonly<Record<string, number>>

/** Sizes that the shapes of tensors say in the file, so that no key repeats them. */
const IMPLIED = new Set(['kind', 'rank', 'size', 'blockSize', 'numTokens', 'shape', 'leftShape', 'rightShape'])

/** Dimensions by field: a size of the primitive, or null for whatever is left. Fields not here are vectors. */
const DIMENSIONS: Readonly<Record<string, Readonly<Record<string, (sizes: Numbers) => readonly (number | null)[]>>>> = {
  'low-rank': { a: ({ rank }) => [rank!, null], b: ({ rank }) => [null, rank!] },
  'gated-low-rank': { a: ({ rank }) => [rank!, null], b: ({ rank }) => [null, rank!] },
  rows: { rows: ({ rowIds }) => [rowIds!, null] },
  circulant: { kernel: ({ blockSize, outBlocks }) => [outBlocks!, null, blockSize!] },
  dense: { delta: ({ rows }) => [rows!, null] },
  rotate: { blocks: ({ blockSize }) => [null, blockSize!, blockSize!] },
  bottleneck: { down: ({ size }) => [size!, null], up: ({ size }) => [null, size!] },
  'stream-edit': { source: ({ rank }) => [rank!, null], rotation: ({ rank }) => [rank!, null] },
  'side-attention': { keys: ({ numTokens }) => [numTokens!, null], values: ({ numTokens }) => [numTokens!, null] },
  'position-rows': { rows: ({ positions }) => [positions!, null] },
  half: { down: ({ size }) => [size!, null], up: ({ size }) => [null, size!] },
}

/** Matrices of a mixture's gate: square, or a row an expert. */
const SQUARE = new Set(['query', 'key', 'value'])

/** Returns the directory; the file's JSON too, for a test to change. `hidden` is the model's width. */
export function writeNative(adapter: CompiledAdapter, hidden: number): { readonly dir: string; readonly json: Json } {
  const dir = join(tempDir(), 'native')
  mkdirSync(dir)
  const writer = new SafetensorsWriter(join(dir, 'adapter.safetensors'))
  let count = 0
  const tensor = (values: Float32Array | Int32Array, dims: readonly (number | null)[] = [null]): string => {
    const known = dims.reduce<number>((product, size) => product * (size ?? 1), 1)
    const name = `t${count++}`
    writer.add(
      name,
      dims.map((size) => size ?? values.length / known),
      values,
    )
    return name
  }
  const entryOf = (value: object, kind: string, numExperts: number): Json => {
    const fields = value as Readonly<Record<string, unknown>>
    const entry: Json = {}
    const sizes: Record<string, number> = { outBlocks: 1, rows: (fields['rowIds'] as Int32Array | undefined)?.length ?? 0 }
    for (const [key, field] of Object.entries(fields)) if (typeof field === 'number') sizes[key] = field
    sizes['rowIds'] = sizes['rows']!
    if (kind === 'dense' && fields['rowIds'] === null) sizes['rows'] = (fields['delta'] as Float32Array).length / hidden
    if (kind === 'position-rows') sizes['positions'] = (fields['rows'] as Float32Array).length / hidden
    for (const [key, field] of Object.entries(fields)) {
      if (IMPLIED.has(key) && key !== 'half') continue
      if (field instanceof Float32Array || field instanceof Int32Array) {
        entry[nameOf(kind, key, field, fields)] = tensor(field, dimsOf(kind, key, fields, sizes, numExperts))
      } else if (Array.isArray(field)) {
        entry[key] = field.map((each: { kind: string }) => ({ primitive: each.kind, ...entryOf(each, each.kind, 0) }))
      } else if (typeof field === 'object' && field !== null) {
        const inner = field as { kind?: string }
        const experts = fields['experts'] as readonly unknown[] | undefined
        const child = kind === 'coupling' ? 'half' : (inner.kind ?? 'plain')
        entry[key] = {
          ...(inner.kind === undefined ? {} : { kind: inner.kind }),
          ...entryOf(field, child, experts?.length ?? 0),
        }
      } else entry[key] = field
    }
    return entry
  }
  const program = [...adapter.sites].flatMap(([site, primitives]) =>
    primitives.map((primitive) => ({ site, primitive: primitive.kind, ...entryOf(primitive, primitive.kind, 0) })),
  )
  const json: Json = { version: 1, kind: adapter.kind, program }
  if (adapter.invocationTokenIds !== null) json['invocationTokenIds'] = adapter.invocationTokenIds
  if (adapter.virtualTokens !== null) json['virtualTokens'] = virtualTokensOf(adapter.virtualTokens, writer, tensor)
  writer.finish()
  writeJson(dir, json)
  return { dir, json }
}

export function writeJson(dir: string, json: Json): void {
  writeFileSync(join(dir, 'lorikeet_adapter.json'), JSON.stringify(json))
}

/** A replaced vector and an output's own scales go by another name than their matrix or number. */
function nameOf(
  kind: string,
  key: string,
  values: Float32Array | Int32Array,
  fields: Readonly<Record<string, unknown>>,
): string {
  if (kind === 'bottleneck' && key === 'scale') return 'scales'
  const isVector = kind === 'replace' && (fields['shape'] as readonly number[]).length === 1 && values.length > 0
  return isVector ? 'vector' : key
}

function dimsOf(
  kind: string,
  key: string,
  fields: Readonly<Record<string, unknown>>,
  sizes: Numbers,
  numExperts: number,
): readonly (number | null)[] {
  if (kind === 'replace') return fields['shape'] as readonly number[]
  if (kind === 'kron') return fields[`${key}Shape`] as readonly number[]
  if (numExperts > 0 && (key === 'weight' || key === 'prototypes')) return [numExperts, null]
  if (kind === 'attention' && SQUARE.has(key)) {
    const size = Math.sqrt((fields[key] as Float32Array).length)
    return [size, size]
  }
  return DIMENSIONS[kind]?.[key]?.(sizes) ?? [null]
}

function virtualTokensOf(
  virtual: NonNullable<CompiledAdapter['virtualTokens']>,
  writer: SafetensorsWriter,
  tensor: (values: Float32Array, dims: readonly (number | null)[]) => string,
): Json {
  const { kind, numTokens } = virtual
  const layered = (name: string, arrays: readonly Float32Array[]): string => {
    for (const [layer, values] of arrays.entries())
      writer.add(`${name}.${layer}`, [numTokens, values.length / numTokens], values)
    return `${name}.{layer}`
  }
  if (kind === 'soft-prompt') {
    const layerRows = virtual.layerRows === null ? null : layered('layerRows', virtual.layerRows)
    return { kind, rows: tensor(virtual.rows, [numTokens, null]), ...(layerRows === null ? {} : { layerRows }) }
  }
  const { gates, positions } = virtual
  const side = (name: 'keys' | 'values') => {
    for (const [layer, gate] of (gates ?? []).entries()) {
      writer.add(`gates.${layer}.${name}`, [gate[name].weight.length], gate[name].weight)
      writer.add(`gates.${layer}.${name}.bias`, [1], Float32Array.of(gate[name].bias))
    }
    return { weight: `gates.{layer}.${name}`, bias: `gates.{layer}.${name}.bias` }
  }
  return {
    kind,
    positions,
    keys: layered('keys', virtual.keys),
    values: layered('values', virtual.values),
    ...(gates === null ? {} : { gates: { keys: side('keys'), values: side('values') } }),
  }
}
