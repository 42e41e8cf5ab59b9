// Choices and their parts as lorikeet.v1 messages.

import type { TokenLogprobs } from '../../engine/messages.ts'
import type { ChoiceDelta, Choice as GenerationChoice } from '../generation/choice.ts'
import type { Generation, Usage as GenerationUsage } from '../generation/generation.ts'
import type { TokenNames } from '../generation/token-names.ts'
import type { ResultOptions } from '../request/generation-call.ts'
import {
  type Choice,
  type Delta,
  type Finished,
  FinishReason,
  type GenerateResponse,
  type TokenLogprob,
  type TopLogprob,
  type Usage,
} from './generated/lorikeet/v1/inference.ts'

export interface GenerateOptions {
  readonly result: ResultOptions
  readonly sendsText: boolean
}

const REASONS = { stop: FinishReason.STOP, length: FinishReason.LENGTH, abort: FinishReason.ABORT } as const

export function deltaOf(choice: GenerationChoice, delta: ChoiceDelta, isFirst: boolean, options: GenerateOptions): Delta {
  const { result, sendsText } = options
  const echo = isFirst ? (result.echoTexts?.[choice.promptIndex] ?? '') : ''
  return {
    index: choice.index,
    text: sendsText ? echo + delta.text : '',
    tokenIds: result.returnsTokenIds ? delta.tokenIds : [],
    logprobs: result.numTop === null ? [] : logprobsOf(delta.logprobs, result.numTop, result.names),
  }
}

export function finishedOf({ index, finish }: GenerationChoice): Finished {
  const stop = finish?.stop ?? null
  return {
    index,
    finishReason: finish === null ? FinishReason.UNSPECIFIED : REASONS[finish.reason],
    stopCause:
      stop === null
        ? undefined
        : typeof stop === 'string'
          ? { $case: 'stopString', stopString: stop }
          : { $case: 'stopTokenId', stopTokenId: stop },
  }
}

export function usageOf({ numPromptTokens, numOutputTokens, numCachedTokens }: GenerationUsage): Usage {
  return { promptTokens: numPromptTokens, completionTokens: numOutputTokens, cachedTokens: numCachedTokens }
}

/** Takes everything a finished generation has. */
export function responseOf(generation: Generation, options: GenerateOptions): GenerateResponse {
  const { request, choices, usage } = generation
  const { numPromptTop, names, returnsTokenIds } = options.result
  return {
    id: request.responseId,
    model: request.modelName,
    adapter: request.adapter?.name ?? '',
    choices: choices.map((choice): Choice => {
      const delta = deltaOf(choice, choice.take(), true, options)
      return { ...delta, ...finishedOf(choice) }
    }),
    usage: usageOf(usage),
    promptTokenIds: returnsTokenIds ? [...(request.prompts[0]?.tokenIds ?? [])] : [],
    promptLogprobs: numPromptTop === null ? [] : logprobsOf(choices[0]?.promptLogprobs ?? [], numPromptTop, names),
  }
}

/** `numTop` alternatives a token, -1 = all that there are. */
function logprobsOf(entries: readonly TokenLogprobs[], numTop: number, names: TokenNames): TokenLogprob[] {
  return entries.map(({ tokenId, logprob, rank, topTokenIds, topLogprobs }) => {
    const count = numTop < 0 ? topTokenIds.length : Math.min(numTop, topTokenIds.length)
    const top = Array.from({ length: count }, (_, i): TopLogprob => {
      const id = topTokenIds[i] as number
      return { tokenId: id, token: names.name(id), logprob: topLogprobs[i] as number }
    })
    return { tokenId, token: names.name(tokenId), logprob, rank, top }
  })
}
