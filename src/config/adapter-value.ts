import type { StaticAdapter } from '../config.ts'
import { list, type Parsed, type ValueKind } from './option-value.ts'

/** `NAME=DIR`, or vLLM's JSON object `{"name": ..., "path": ...}`; `base_model_name` there is read and has no effect: one base is served. */
export function adapters(): ValueKind<readonly StaticAdapter[]> {
  const entries = list('NAME=DIR', parseAdapter)
  return {
    ...entries,
    parse: (texts) => {
      const parsed = entries.parse(texts)
      if (!parsed.ok) return parsed
      const names = parsed.value.map((adapter) => adapter.name)
      const twice = names.find((name, index) => names.indexOf(name) !== index)
      return twice === undefined ? parsed : { ok: false, reason: `the name '${twice}' is given twice` }
    },
  }
}

function parseAdapter(raw: string): Parsed<StaticAdapter> {
  const fields = raw.trimStart().startsWith('{') ? parseObject(raw) : parsePair(raw)
  if (fields === null || fields.name === '' || fields.path === '') {
    return { ok: false, reason: `must be NAME=DIR or {"name": ..., "path": ...}, not '${raw}'` }
  }
  return { ok: true, value: fields }
}

function parsePair(raw: string): StaticAdapter | null {
  const equals = raw.indexOf('=')
  return equals < 1 ? null : { name: raw.slice(0, equals), path: raw.slice(equals + 1) }
}

function parseObject(raw: string): StaticAdapter | null {
  let value: unknown
  try {
    value = JSON.parse(raw)
  } catch {
    return null
  }
  if (typeof value !== 'object' || value === null || !('name' in value) || !('path' in value)) return null
  const { name, path } = value
  return typeof name === 'string' && typeof path === 'string' ? { name, path } : null
}
