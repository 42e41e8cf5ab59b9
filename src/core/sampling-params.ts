// What the engine needs to know to pick tokens. Plain data: it crosses threads.
// Ranges are checked by the server; the engine trusts them. Text (stop strings) never gets here.

export interface SamplingParams {
  /** 0 = greedy; every other random field is then ignored. */
  readonly temperature: number
  /** 1 = off. */
  readonly topP: number
  /** 0 = off. */
  readonly topK: number
  /** 0 = off; keeps tokens with p >= minP * pMax. */
  readonly minP: number
  /** 1 = off; over prompt and output tokens. */
  readonly repetitionPenalty: number
  /** 0 = off; over output tokens. */
  readonly presencePenalty: number
  /** 0 = off; over output tokens. */
  readonly frequencyPenalty: number
  /** null = drawn by the engine at admission. */
  readonly seed: number | null
  /** 0 = score the prompt only. */
  readonly maxTokens: number
  /** Until reached, `eosTokenIds` and `stopTokenIds` cannot be sampled. */
  readonly minTokens: number
  readonly ignoreEos: boolean
  readonly eosTokenIds: readonly number[]
  readonly stopTokenIds: readonly number[]
  readonly logitBias: readonly (readonly [tokenId: number, bias: number])[]
  readonly allowedTokenIds: readonly number[] | null
  /** Token sequences that must not appear in the output. */
  readonly badWords: readonly (readonly number[])[]
  /** Number of alternatives beside each sampled token; null = none wanted, 0 = the sampled one only, -1 = the whole vocabulary. */
  readonly logprobs: number | null
  /** The same for each prompt token after the first. */
  readonly promptLogprobs: number | null
}

/** A row that needs only the argmax of its raw logits, so a backend may sample it on the device. */
export function isPlainGreedy(params: SamplingParams, numOutputTokens: number): boolean {
  return (
    params.temperature === 0 &&
    params.repetitionPenalty === 1 &&
    params.presencePenalty === 0 &&
    params.frequencyPenalty === 0 &&
    params.logitBias.length === 0 &&
    params.allowedTokenIds === null &&
    params.badWords.length === 0 &&
    params.logprobs === null &&
    numOutputTokens >= params.minTokens
  )
}
