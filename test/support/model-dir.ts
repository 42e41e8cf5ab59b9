// Golden models with something changed, written to a directory of their own.

import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { openSafetensors } from '../../src/model/safetensors.ts'
import { goldenModelDir } from './golden.ts'
import { type TensorData, tempDir, writeSafetensors } from './safetensors-file.ts'

export type Tensors = Record<string, TensorData>
export type Json = Record<string, unknown>

export interface ModelChange {
  /** Merged into config.json; undefined removes a field. */
  readonly config?: Json
  /** Replaces generation_config.json; null = no such file. */
  readonly generationConfig?: Json | null
  readonly tensors?: (tensors: Tensors) => Tensors
}

export function readTensors(name: string): Tensors {
  const path = join(goldenModelDir(name), 'model.safetensors')
  const file = readFileSync(path)
  const tensors: Tensors = {}
  for (const [key, { dtype, shape, byteOffset, byteLength }] of openSafetensors(path).tensors) {
    tensors[key] = { dtype, shape, data: file.subarray(byteOffset, byteOffset + byteLength) }
  }
  return tensors
}

export function readConfig(name: string): Json {
  return JSON.parse(readFileSync(join(goldenModelDir(name), 'config.json'), 'utf8'))
}

/** Returns the directory. */
export function writeChangedModel(name: string, change: ModelChange = {}): string {
  const dir = join(tempDir(), name)
  mkdirSync(dir)
  writeFileSync(join(dir, 'config.json'), JSON.stringify({ ...readConfig(name), ...change.config }))
  const generation = change.generationConfig === undefined ? { eos_token_id: 2 } : change.generationConfig
  if (generation !== null) writeFileSync(join(dir, 'generation_config.json'), JSON.stringify(generation))
  const tensors = readTensors(name)
  writeSafetensors(join(dir, 'model.safetensors'), change.tensors?.(tensors) ?? tensors)
  return dir
}

/** The same tensors in two shards with an index; `weightMap` changes what the index says. */
export function writeShardedModel(name: string, weightMap: (map: Record<string, string>) => Json = (map) => map): string {
  const dir = writeChangedModel(name)
  rmSync(join(dir, 'model.safetensors'))
  const entries = Object.entries(readTensors(name))
  const middle = Math.floor(entries.length / 2)
  const shards = { 'a.safetensors': entries.slice(0, middle), 'b.safetensors': entries.slice(middle) }
  const map: Record<string, string> = {}
  for (const [shard, tensors] of Object.entries(shards)) {
    writeSafetensors(join(dir, shard), Object.fromEntries(tensors))
    for (const [key] of tensors) map[key] = shard
  }
  writeFileSync(join(dir, 'model.safetensors.index.json'), JSON.stringify({ weight_map: weightMap(map) }))
  return dir
}
