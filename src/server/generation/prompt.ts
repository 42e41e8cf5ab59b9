// Prompt text or ids to the token ids the engine runs, with every check that can be made before it does.

import { contextLengthExceeded } from '../../core/context-length.ts'
import { LorikeetError } from '../../errors.ts'
import type { Tokenizer } from '../../tokenizer/tokenizer.ts'

/** One prompt as a client gives it: text or token ids. */
export type PromptInput = string | readonly number[]

export interface Prompt {
  readonly tokenIds: Int32Array
  /** As the client sent it; null for token ids. */
  readonly text: string | null
}

export interface PromptRules {
  readonly tokenizer: Tokenizer | null
  readonly vocabSize: number
  readonly maxModelLen: number
  /** Positions the adapter's own tokens take; nobody but the limit counts them. */
  readonly numVirtualTokens: number
  readonly addSpecialTokens: boolean
  /** Tokens kept; null = all. */
  readonly truncateTo: number | null
  /** `left` drops the beginning. */
  readonly truncationSide: 'left' | 'right'
  /** Request field named in errors. */
  readonly field: string
}

type ContextRules = Pick<PromptRules, 'maxModelLen' | 'numVirtualTokens' | 'field'>

/** Encodes, truncates and checks one prompt. Throws what is wrong with it, always a 400. */
export function readPrompt(input: PromptInput, rules: PromptRules): Prompt {
  const isText = typeof input === 'string'
  const tokenIds = truncate(isText ? encode(input, rules) : input, rules)
  if (tokenIds.length === 0) throw invalid(rules, 'must not be empty')
  for (const tokenId of tokenIds) {
    if (tokenId >= 0 && tokenId < rules.vocabSize) continue
    throw tokenOutOfVocabulary(rules.field, tokenId, rules.vocabSize)
  }
  return { tokenIds: Int32Array.from(tokenIds), text: isText ? input : null }
}

function encode(text: string, rules: PromptRules): readonly number[] {
  const { tokenizer, maxModelLen } = rules
  if (tokenizer === null) throw new LorikeetError('NO_TOKENIZER', {}, { field: rules.field })
  // Encoding megabytes would hold up every other request for seconds: what cannot fit is refused by its length alone.
  const maxChars = maxModelLen * tokenizer.table.maxTokenChars
  if (text.length > maxChars && rules.truncateTo === null) {
    const minTokens = Math.ceil(text.length / tokenizer.table.maxTokenChars)
    throw tooLong(rules, minTokens, 0)
  }
  return tokenizer.encode(clip(text, rules, maxChars), rules.addSpecialTokens)
}

/** With truncation only the kept end of an over-long text need be encoded; a margin keeps merges at the cut out of it. */
function clip(text: string, rules: PromptRules, maxChars: number): string {
  const numKept = maxChars + rules.maxModelLen
  if (text.length <= numKept) return text
  return rules.truncationSide === 'left' ? text.slice(-numKept) : text.slice(0, numKept)
}

function truncate(tokenIds: readonly number[], { truncateTo, truncationSide }: PromptRules): readonly number[] {
  if (truncateTo === null || tokenIds.length <= truncateTo) return tokenIds
  return truncationSide === 'left' ? tokenIds.slice(tokenIds.length - truncateTo) : tokenIds.slice(0, truncateTo)
}

/** The limit of new tokens for prompts of up to `numPromptTokens`. `fallback` is shortened to fit, a stated limit never is. */
export function resolveMaxTokens(
  rules: ContextRules,
  numPromptTokens: number,
  stated: number | null,
  fallback: number | null,
): number {
  const room = rules.maxModelLen - rules.numVirtualTokens - numPromptTokens
  if (stated !== null) {
    if (stated > room) throw tooLong(rules, numPromptTokens, stated)
    return stated
  }
  if (room < 1) throw tooLong(rules, numPromptTokens, 1)
  return fallback === null ? room : Math.min(fallback, room)
}

function tooLong(rules: ContextRules, promptTokens: number, maxTokens: number): LorikeetError {
  const { maxModelLen, numVirtualTokens: virtualTokens, field } = rules
  return contextLengthExceeded({ maxModelLen, promptTokens, maxTokens, virtualTokens }, field)
}

function invalid({ field }: PromptRules, reason: string): LorikeetError {
  return new LorikeetError('FIELD_INVALID', { field, reason })
}

/** Names the offending id; `vocabSize` is the model's. */
export function tokenOutOfVocabulary(field: string, tokenId: number, vocabSize: number): LorikeetError {
  return new LorikeetError('TOKEN_OUT_OF_VOCABULARY', { tokenId, vocabSize }, { field })
}
