// The weight files of a model directory: model.safetensors, or the shards that model.safetensors.index.json lists.

import { existsSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { LorikeetError } from '../errors.ts'
import type { JsonObject } from './config-reader.ts'
import { openSafetensors, type SafetensorsEntry } from './safetensors.ts'

const SINGLE_FILE = 'model.safetensors'
const INDEX_FILE = 'model.safetensors.index.json'

/** Every tensor of the checkpoint by name. Throws MODEL_INVALID or SAFETENSORS_INVALID. */
export function openCheckpoint(dir: string): ReadonlyMap<string, SafetensorsEntry> {
  const single = join(dir, SINGLE_FILE)
  if (existsSync(single)) return openSafetensors(single).tensors
  if (!existsSync(join(dir, INDEX_FILE))) {
    throw modelInvalid(`${dir} has neither ${SINGLE_FILE} nor ${INDEX_FILE}`)
  }
  return openShards(dir)
}

function openShards(dir: string): ReadonlyMap<string, SafetensorsEntry> {
  const shardOf = readWeightMap(dir)
  const tensors = new Map<string, SafetensorsEntry>()
  for (const shard of new Set(shardOf.values())) {
    if (!existsSync(join(dir, shard))) throw modelInvalid(`${INDEX_FILE} names ${shard}, which is not in ${dir}`)
    for (const [name, entry] of openSafetensors(join(dir, shard)).tensors) {
      if (tensors.has(name)) throw modelInvalid(`tensor ${name} is in two shards`)
      tensors.set(name, entry)
    }
  }
  for (const [name, shard] of shardOf) {
    if (basename(tensors.get(name)?.file ?? '') !== shard)
      throw modelInvalid(`${INDEX_FILE} says ${shard} holds ${name}; it does not`)
  }
  return tensors
}

function readWeightMap(dir: string): ReadonlyMap<string, string> {
  const weightMap = readJsonObject(join(dir, INDEX_FILE))['weight_map']
  if (typeof weightMap !== 'object' || weightMap === null) throw modelInvalid(`${INDEX_FILE} has no weight_map`)
  const shardOf = new Map<string, string>()
  for (const [name, shard] of Object.entries(weightMap)) {
    // A shard is a file of this directory: an index must not make us open any other.
    if (typeof shard !== 'string' || shard !== basename(shard)) {
      throw modelInvalid(`${INDEX_FILE} places ${name} in ${JSON.stringify(shard)}, which is not a plain file name`)
    }
    shardOf.set(name, shard)
  }
  return shardOf
}

/** Throws MODEL_INVALID where the file is missing or is not a JSON object. */
export function readJsonObject(path: string): JsonObject {
  let value: unknown
  try {
    value = JSON.parse(readFileSync(path, 'utf8'))
  } catch (cause) {
    throw modelInvalid(`${path} cannot be read (${cause instanceof Error ? cause.message : String(cause)})`)
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw modelInvalid(`${path} is not a JSON object`)
  return value as JsonObject
}

export function modelInvalid(reason: string): LorikeetError {
  return new LorikeetError('MODEL_INVALID', { reason })
}
