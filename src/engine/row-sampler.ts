// Goes over the logit rows of one step: scores prompt tokens, samples next tokens, takes log-probabilities.

import type { StepOutput } from '../core/step-plan.ts'
import type { TokenLogprobs } from './messages.ts'
import type { EngineRequest } from './request.ts'
import { Sampler } from './sampler.ts'
import { tokenLogprobs } from './token-logprobs.ts'

/** What one step decided for one request. */
export interface SampledRow {
  readonly request: EngineRequest
  /** Null where nothing was sampled, or where the logits hold no number. */
  readonly tokenId: number | null
  readonly logprobs: TokenLogprobs | null
}

export class RowSampler {
  readonly #vocabSize: number
  readonly #sampler: Sampler

  constructor(vocabSize: number) {
    this.#vocabSize = vocabSize
    this.#sampler = new Sampler(vocabSize)
  }

  /** One entry a scheduled request, in their order. Appends to `promptLogprobs` of requests that asked for them. */
  sample(output: StepOutput, scheduled: readonly EngineRequest[]): SampledRow[] {
    return scheduled.map((request) => {
      const row = request.firstLogitRow + request.numScoreRows
      if (output.kind === 'tokens') {
        return { request, tokenId: request.isSampled ? (output.tokenIds[row] as number) : null, logprobs: null }
      }
      this.#scorePrompt(request, output.logits)
      return request.isSampled
        ? this.#sampleRow(request, this.#row(output.logits, row))
        : { request, tokenId: null, logprobs: null }
    })
  }

  #sampleRow(request: EngineRequest, logits: Float32Array): SampledRow {
    const tokenId = this.#sampler.sample(logits, request)
    const numTop = request.sampling.logprobs
    const logprobs = numTop === null || tokenId === null ? null : tokenLogprobs(logits, tokenId, numTop)
    return { request, tokenId, logprobs }
  }

  #scorePrompt(request: EngineRequest, logits: Float32Array): void {
    const { promptLogprobs, sampling } = request
    if (promptLogprobs === null) return
    for (let i = 0; i < request.numScoreRows; i++) {
      const nextToken = request.tokens[request.promptStart + promptLogprobs.length + 1] as number
      const row = this.#row(logits, request.firstLogitRow + i)
      promptLogprobs.push(tokenLogprobs(row, nextToken, sampling.promptLogprobs ?? 0))
    }
  }

  #row(logits: Float32Array, row: number): Float32Array {
    return logits.subarray(row * this.#vocabSize, (row + 1) * this.#vocabSize)
  }
}
