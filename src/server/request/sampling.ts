// From validated fields to what the engine samples by, with the rules that tie several fields together.

import type { SamplingParams } from '../../core/sampling-params.ts'
import { LorikeetError } from '../../errors.ts'
import type { GenerationDefaults } from '../../tokenizer/generation-defaults.ts'
import type { TextModel } from '../../tokenizer/text-model.ts'
import type { Tokenizer } from '../../tokenizer/tokenizer.ts'
import { tokenOutOfVocabulary } from '../generation/prompt.ts'
import { type FieldValues, fieldInvalid } from './fields.ts'
import type { SAMPLING_FIELDS } from './sampling-fields.ts'

export type SamplingValues = FieldValues<typeof SAMPLING_FIELDS>

// Below the first a distribution is greedy in float32; between the two, exp() of scaled logits overflows (vLLM's bounds).
const GREEDY_BELOW = 1e-5
const MIN_TEMPERATURE = 0.01

export interface SamplingRules {
  readonly text: TextModel
  readonly vocabSize: number
  readonly maxLogprobs: number
  /** Alternatives wanted an output token and a prompt token; null = none. */
  readonly logprobs: number | null
  readonly promptLogprobs: number | null
}

/** Everything but the token limit, which depends on the prompt. Throws a 400 naming the field. */
export function buildSampling(values: SamplingValues, rules: SamplingRules): Omit<SamplingParams, 'maxTokens'> {
  const { text, vocabSize } = rules
  checkCombinations(values)
  checkTokenIds('allowed_token_ids', values.allowed_token_ids ?? [], vocabSize)
  checkTokenIds(
    'logit_bias',
    values.logit_bias.map(([tokenId]) => tokenId),
    vocabSize,
  )
  const temperature = resolveTemperature(values.temperature, text.generationDefaults)
  if (temperature === 0 && values.n > 1)
    throw fieldInvalid('n', 'must be 1 when temperature is 0: every choice would be the same')
  return {
    temperature,
    ...resolveTruncation(values, text.generationDefaults, temperature),
    repetitionPenalty: values.repetition_penalty ?? text.generationDefaults.repetitionPenalty ?? 1,
    presencePenalty: values.presence_penalty,
    frequencyPenalty: values.frequency_penalty,
    seed: values.seed === -1 ? null : values.seed,
    minTokens: values.min_tokens,
    ignoreEos: values.ignore_eos,
    eosTokenIds: text.eosTokenIds,
    stopTokenIds: values.stop_token_ids,
    logitBias: values.logit_bias,
    allowedTokenIds: values.allowed_token_ids,
    badWords: encodeBadWords(values.bad_words, text.tokenizer),
    logprobs: rules.logprobs,
    promptLogprobs: rules.promptLogprobs,
  }
}

function checkCombinations(values: SamplingValues): void {
  if (values.stream_options !== null && !values.stream) throw fieldInvalid('stream_options', 'needs stream: true')
  const bestOf = values.best_of
  if (bestOf !== null && bestOf > 1 && bestOf !== values.n) {
    throw fieldInvalid('best_of', 'must be absent, 0, 1, or equal to n')
  }
}

function resolveTemperature(stated: number | null, defaults: GenerationDefaults): number {
  const temperature = stated ?? defaults.temperature ?? 1
  if (temperature < GREEDY_BELOW) return 0
  return Math.max(temperature, MIN_TEMPERATURE)
}

function resolveTruncation(
  values: SamplingValues,
  defaults: GenerationDefaults,
  temperature: number,
): Pick<SamplingParams, 'topP' | 'topK' | 'minP'> {
  if (temperature === 0) return { topP: 1, topK: 0, minP: 0 }
  return {
    topP: values.top_p ?? defaults.topP ?? 1,
    topK: Math.max(0, values.top_k ?? defaults.topK ?? 0),
    minP: values.min_p ?? defaults.minP ?? 0,
  }
}

function checkTokenIds(field: string, tokenIds: readonly number[], vocabSize: number): void {
  for (const tokenId of tokenIds) if (tokenId >= vocabSize) throw tokenOutOfVocabulary(field, tokenId, vocabSize)
}

/** Each word as it stands at the beginning of a text and, where that is another token sequence, after a blank. */
function encodeBadWords(words: readonly string[], tokenizer: Tokenizer | null): number[][] {
  if (words.length === 0) return []
  if (tokenizer === null) throw new LorikeetError('NO_TOKENIZER', {}, { field: 'bad_words' })
  return words.flatMap((word) => {
    const first = tokenizer.encode(word, false)
    const later = tokenizer.encode(` ${word.trimStart()}`, false)
    const isOther = later[0] !== first[0] && later.length === first.length
    return [first, ...(isOther ? [later] : [])].filter((tokenIds) => tokenIds.length > 0)
  })
}

/** Checks a number of alternatives against the server's cap; -1, the whole vocabulary, only without a cap. */
export function checkLogprobs(field: string, numTop: number | null, maxLogprobs: number): void {
  if (numTop === null || maxLogprobs === -1) return
  if (numTop < 0) throw fieldInvalid(field, `must not be -1: this server allows up to ${maxLogprobs}`)
  if (numTop > maxLogprobs) throw fieldInvalid(field, `must be at most ${maxLogprobs} on this server`)
}
