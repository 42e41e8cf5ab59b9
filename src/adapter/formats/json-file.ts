import { readFileSync, statSync } from 'node:fs'
import { isJsonObject, type JsonObject } from '../../core/json.ts'
import { LorikeetError } from '../../errors.ts'
import type { Refuse } from './peft/refuse.ts'

/** Real configs are a few KiB; per-module patterns of a large model reach some hundred. The rest is not a config. */
const MAX_CONFIG_BYTES = 16 * 2 ** 20

/** The object in a JSON file; `field` names the file in a refusal. */
export function readJsonObject(path: string, field: string, refuse: Refuse): JsonObject {
  let parsed: unknown
  try {
    if (statSync(path).size > MAX_CONFIG_BYTES) throw refuse(field, `is larger than ${MAX_CONFIG_BYTES} bytes`)
    parsed = JSON.parse(readFileSync(path, 'utf8'))
  } catch (cause) {
    if (cause instanceof LorikeetError) throw cause
    throw refuse(field, `cannot be read (${cause instanceof Error ? cause.message : String(cause)})`)
  }
  if (!isJsonObject(parsed)) throw refuse(field, 'is not a JSON object')
  return parsed
}

export function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() ?? false
}
