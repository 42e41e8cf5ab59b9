import type { SamplingParams } from '../src/core/sampling-params.ts'

/** `maxTokens` tokens by argmax, whatever they are: every run of a bench does the same work. */
export function greedy(maxTokens: number): SamplingParams {
  return {
    temperature: 0,
    topP: 1,
    topK: 0,
    minP: 0,
    repetitionPenalty: 1,
    presencePenalty: 0,
    frequencyPenalty: 0,
    seed: null,
    maxTokens,
    minTokens: 0,
    ignoreEos: true,
    eosTokenIds: [],
    stopTokenIds: [],
    logitBias: [],
    allowedTokenIds: null,
    badWords: [],
    logprobs: null,
    promptLogprobs: null,
  }
}
