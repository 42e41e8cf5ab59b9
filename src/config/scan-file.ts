import { readFileSync } from 'node:fs'
import { LorikeetError } from '../errors.ts'
import { findOption } from './options.ts'
import { type GivenOption, unknownOption } from './scan-args.ts'

/** A JSON object whose keys are option names: `{"port": 8001, "adapter": {"pirate": "demo/adapters/pirate"}}`. */
export function scanFile(path: string): readonly GivenOption[] {
  return Object.entries(readObject(path)).map(([key, value]) => {
    const origin = `${path}: ${key}`
    const name = findOption(key)
    if (name === null) throw unknownOption(origin, key, (near) => `"${near}"`)
    if (name === 'config')
      throw new LorikeetError('CONFIG_INVALID', { option: origin, reason: 'a config file cannot name another' })
    return { name, texts: toTexts(value, origin, name === 'adapter'), origin }
  })
}

function readObject(path: string): object {
  let value: unknown
  try {
    value = JSON.parse(readFileSync(path, 'utf8'))
  } catch (cause) {
    const detail = cause instanceof Error ? cause.message : String(cause)
    throw new LorikeetError(
      'CONFIG_INVALID',
      { option: '--config', reason: `cannot read ${path} as JSON: ${detail}` },
      { cause },
    )
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value
  throw new LorikeetError('CONFIG_INVALID', { option: '--config', reason: `${path} must hold one JSON object` })
}

function toTexts(value: unknown, origin: string, isAdapters: boolean): readonly string[] {
  if (Array.isArray(value)) {
    return value.map((entry) => (typeof entry === 'object' && entry !== null ? JSON.stringify(entry) : toText(entry, origin)))
  }
  if (isAdapters && typeof value === 'object' && value !== null) {
    return Object.entries(value).map(([name, path]) => JSON.stringify({ name, path }))
  }
  return [toText(value, origin)]
}

function toText(value: unknown, origin: string): string {
  if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') return String(value)
  throw new LorikeetError('CONFIG_INVALID', {
    option: origin,
    reason: 'must be a string, a number, true, false or a list of these',
  })
}
