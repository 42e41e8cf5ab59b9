// Everything that changes logits before temperature, in vLLM's order: allowed ids, bad words, min_tokens, bias, penalties.

import type { SamplingParams } from '../core/sampling-params.ts'

/** What sampling reads of a request. */
export interface SamplingState {
  readonly sampling: SamplingParams
  readonly seed: number
  /** Virtual tokens, prompt, output; the first `numTokens` are valid. */
  readonly tokens: Int32Array
  readonly numTokens: number
  readonly numPromptTokens: number
  readonly numOutputTokens: number
  /** Uses of each output token; null where no penalty asks. */
  readonly outputCounts: ReadonlyMap<number, number> | null
  readonly promptTokenSet: ReadonlySet<number> | null
}

export function hasAdjustments(state: SamplingState): boolean {
  const { sampling } = state
  return (
    sampling.allowedTokenIds !== null ||
    sampling.badWords.length > 0 ||
    sampling.logitBias.length > 0 ||
    state.numOutputTokens < sampling.minTokens ||
    state.outputCounts !== null
  )
}

/** Adjusts `logits` in place. */
export function adjustLogits(logits: Float32Array, state: SamplingState): void {
  const { sampling } = state
  if (sampling.allowedTokenIds !== null) keepOnly(logits, sampling.allowedTokenIds)
  for (const word of sampling.badWords) banWord(logits, word, state)
  if (state.numOutputTokens < sampling.minTokens) {
    for (const id of sampling.eosTokenIds) logits[id] = -Infinity
    for (const id of sampling.stopTokenIds) logits[id] = -Infinity
  }
  for (const [id, bias] of sampling.logitBias) logits[id] = (logits[id] as number) + bias
  applyPenalties(logits, state)
}

function keepOnly(logits: Float32Array, tokenIds: readonly number[]): void {
  const kept = tokenIds.map((id) => logits[id] as number)
  logits.fill(-Infinity)
  for (let i = 0; i < tokenIds.length; i++) logits[tokenIds[i] as number] = kept[i] as number
}

/** The last token of a bad word is banned when the output ends with all the others. */
function banWord(logits: Float32Array, word: readonly number[], state: SamplingState): void {
  const numBefore = word.length - 1
  if (numBefore < 0 || numBefore > state.numOutputTokens) return
  const start = state.numTokens - numBefore
  for (let i = 0; i < numBefore; i++) if (state.tokens[start + i] !== word[i]) return
  logits[word[numBefore] as number] = -Infinity
}

/** Repetition penalty of CTRL (Keskar et al. 2019) over prompt and output; frequency and presence over output, as OpenAI defines them. */
function applyPenalties(logits: Float32Array, state: SamplingState): void {
  const { outputCounts, promptTokenSet } = state
  const { repetitionPenalty, frequencyPenalty, presencePenalty } = state.sampling
  if (outputCounts === null) return
  if (repetitionPenalty !== 1 && promptTokenSet !== null) {
    for (const id of promptTokenSet) repeat(logits, id, repetitionPenalty)
    for (const id of outputCounts.keys()) if (!promptTokenSet.has(id)) repeat(logits, id, repetitionPenalty)
  }
  for (const [id, count] of outputCounts) logits[id] = (logits[id] as number) - frequencyPenalty * count - presencePenalty
}

function repeat(logits: Float32Array, tokenId: number, penalty: number): void {
  const logit = logits[tokenId] as number
  logits[tokenId] = logit > 0 ? logit / penalty : logit * penalty
}
