// Sampling values a model's authors recommend, from generation_config.json.

import { isJsonObject } from '../core/json.ts'

/** Used where a request says nothing; null = the API's own default. */
export interface GenerationDefaults {
  readonly temperature: number | null
  readonly topP: number | null
  readonly topK: number | null
  readonly minP: number | null
  readonly repetitionPenalty: number | null
  /** Limit of a request that names none. */
  readonly maxNewTokens: number | null
}

export const NO_GENERATION_DEFAULTS: GenerationDefaults = {
  temperature: null,
  topP: null,
  topK: null,
  minP: null,
  repetitionPenalty: null,
  maxNewTokens: null,
}

/** Values out of range are left out: the file is often a copy, and a request must not fail for it. */
export function readGenerationDefaults(generationConfig: unknown): GenerationDefaults {
  const config = isJsonObject(generationConfig) ? generationConfig : {}
  const read = (key: string, isValid: (value: number) => boolean): number | null => {
    const value = config[key]
    return typeof value === 'number' && Number.isFinite(value) && isValid(value) ? value : null
  }
  return {
    temperature: read('temperature', (value) => value >= 0 && value <= 2),
    topP: read('top_p', (value) => value > 0 && value <= 1),
    topK: read('top_k', (value) => Number.isInteger(value) && value >= 0),
    minP: read('min_p', (value) => value >= 0 && value <= 1),
    repetitionPenalty: read('repetition_penalty', (value) => value > 0),
    maxNewTokens: read('max_new_tokens', (value) => Number.isInteger(value) && value > 0),
  }
}

/** `eos_token_id` is a number, a list, or absent. */
export function readEosTokenIds(config: unknown): number[] {
  const value = isJsonObject(config) ? config['eos_token_id'] : undefined
  const list: unknown[] = Array.isArray(value) ? value : [value]
  return list.filter((id): id is number => Number.isInteger(id) && (id as number) >= 0)
}
