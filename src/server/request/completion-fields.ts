// The body of POST /v1/completions.

import type { PromptInput } from '../generation/prompt.ts'
import { boolean, type Field, fieldInvalid, integer, unsupported } from './fields.ts'
import { SAMPLING_FIELDS, TOKENS_AS_IDS_FIELD } from './sampling-fields.ts'

// vLLM's limit; each prompt is a request of its own in the engine.
const MAX_PROMPTS = 1024

export const COMPLETION_FIELDS = {
  ...SAMPLING_FIELDS,
  prompt: promptField(),
  suffix: unsupported('the model does not fill in the middle'),
  logprobs: integer(null, { min: -1 }),
  add_special_tokens: boolean(true),
  return_tokens_as_token_ids: TOKENS_AS_IDS_FIELD,
}

function promptField(): Field<readonly PromptInput[]> {
  const ids = { type: 'array', items: { type: 'integer', minimum: 0 }, minItems: 1 }
  const text = { type: 'string', minLength: 1 }
  const many = { minItems: 1, maxItems: MAX_PROMPTS }
  const schema = {
    oneOf: [text, ids, { type: 'array', items: text, ...many }, { type: 'array', items: ids, ...many }],
  }
  const read = (value: unknown, path: string): readonly PromptInput[] => {
    if (typeof value === 'string') return [readText(value, path)]
    if (!Array.isArray(value)) throw fieldInvalid(path, 'must be a string, a list of strings, or lists of token ids')
    const entries: readonly unknown[] = value
    if (entries.length === 0) throw fieldInvalid(path, 'must not be empty')
    if (typeof entries[0] === 'number') return [readTokenIds(entries, path)]
    if (entries.length > MAX_PROMPTS) throw fieldInvalid(path, `must have at most ${MAX_PROMPTS} prompts`)
    if (entries.every((entry) => typeof entry === 'string')) return entries.map((entry) => readText(entry, path))
    if (entries.every((entry) => Array.isArray(entry))) return entries.map((entry) => readTokenIds(entry, path))
    throw fieldInvalid(path, 'must not mix strings, token ids and lists')
  }
  return { schema, isRequired: true, fallback: [], read }
}

function readText(text: string, path: string): string {
  if (text === '') throw fieldInvalid(path, 'must not be empty')
  return text
}

function readTokenIds(entries: readonly unknown[], path: string): readonly number[] {
  if (entries.length === 0) throw fieldInvalid(path, 'must not be empty')
  for (const entry of entries) {
    if (!Number.isInteger(entry)) throw fieldInvalid(path, 'must not mix token ids with other values')
  }
  return entries as readonly number[]
}
