// Answers of /v1/completions.

import type { TokenLogprobs } from '../../engine/messages.ts'
import { Detokenizer } from '../../tokenizer/detokenizer.ts'
import type { Tokenizer } from '../../tokenizer/tokenizer.ts'
import { type Choice, type ChoiceDelta, countCodePoints } from '../generation/choice.ts'
import type { Generation } from '../generation/generation.ts'
import type { Prompt } from '../generation/prompt.ts'
import type { ResultOptions } from '../request/generation-call.ts'
import { type CompletionLogprobs, completionLogprobs, type LogprobToken, promptLogprobs } from './logprobs.ts'
import type { ChunkBody, ResponseFormat } from './response-format.ts'

export class CompletionFormat implements ResponseFormat {
  readonly idPrefix = 'cmpl-'
  readonly unaryObject = 'text_completion'
  readonly chunkObject = 'text_completion'
  readonly hasOpening: boolean
  readonly #options: ResultOptions
  readonly #prompts: readonly Prompt[]
  readonly #tokenizer: Tokenizer | null

  constructor(options: ResultOptions, prompts: readonly Prompt[], tokenizer: Tokenizer | null) {
    this.#options = options
    this.hasOpening = options.echoTexts !== null
    this.#prompts = prompts
    this.#tokenizer = tokenizer
  }

  unary(generation: Generation): Record<string, unknown> {
    const { returnsTokenIds, numPromptTop, names } = this.#options
    const choices = generation.choices.map((choice) => {
      const delta = choice.take()
      const echoed = this.#echoText(choice)
      return {
        index: choice.index,
        text: echoed + delta.text,
        logprobs: this.#logprobs([...this.#echoTokens(choice), ...outputTokens(delta, countCodePoints(echoed))]),
        finish_reason: choice.finish?.reason ?? null,
        stop_reason: choice.finish?.stop ?? null,
        token_ids: returnsTokenIds ? delta.tokenIds : null,
        prompt_logprobs: numPromptTop === null ? null : promptLogprobs(choice.promptLogprobs ?? [], numPromptTop, names),
        prompt_token_ids: returnsTokenIds ? this.#promptTokenIds(choice) : null,
      }
    })
    return { choices }
  }

  chunks(choice: Choice, delta: ChoiceDelta, isFirst: boolean): ChunkBody[] {
    const isEchoed = this.#options.echoTexts !== null
    const echoed = this.#echoText(choice)
    const hasOutput = delta.tokenIds.length > 0 || delta.text !== ''
    const chunks: ChunkBody[] = []
    if (isEchoed && isFirst) {
      const finish = hasOutput ? null : choice.finish
      const promptIds = this.#options.returnsTokenIds ? { prompt_token_ids: this.#promptTokenIds(choice), token_ids: [] } : {}
      chunks.push(chunkBody(choice, echoed, this.#logprobs(this.#echoTokens(choice)), finish, promptIds))
      if (!hasOutput) return chunks
    }
    const promptIds = isFirst && !isEchoed ? { prompt_token_ids: this.#promptTokenIds(choice) } : {}
    const ids = this.#options.returnsTokenIds ? { ...promptIds, token_ids: delta.tokenIds } : {}
    const logprobs = this.#logprobs(outputTokens(delta, countCodePoints(echoed)))
    chunks.push(chunkBody(choice, delta.text, logprobs, choice.finish, ids))
    return chunks
  }

  #logprobs(tokens: readonly LogprobToken[]): CompletionLogprobs | null {
    const { numTop, names } = this.#options
    return numTop === null ? null : completionLogprobs(tokens, numTop, names)
  }

  #echoText(choice: Choice): string {
    return this.#options.echoTexts?.[choice.promptIndex] ?? ''
  }

  #promptTokenIds(choice: Choice): number[] {
    return [...(this.#prompts[choice.promptIndex] as Prompt).tokenIds]
  }

  #echoTokens(choice: Choice): LogprobToken[] {
    const { echoTexts, numTop, skipsSpecialTokens } = this.#options
    if (echoTexts === null || numTop === null) return []
    const prompt = this.#prompts[choice.promptIndex] as Prompt
    return promptTokens(prompt, choice.promptLogprobs ?? [], this.#tokenizer, skipsSpecialTokens)
  }
}

function chunkBody(
  choice: Choice,
  text: string,
  logprobs: CompletionLogprobs | null,
  finish: Choice['finish'],
  ids: Record<string, unknown>,
): ChunkBody {
  const reasons = { finish_reason: finish?.reason ?? null, stop_reason: finish?.stop ?? null }
  return { choices: [{ index: choice.index, text, logprobs, ...reasons, ...ids }] }
}

function outputTokens(delta: ChoiceDelta, offsetOfOutput: number): LogprobToken[] {
  return delta.logprobs.map((entry, index) => ({
    tokenId: entry.tokenId,
    offset: offsetOfOutput + (delta.offsets[index] as number),
    entry,
  }))
}

/** Prompt tokens with their places in the echoed text. `entries` starts at the second token. */
function promptTokens(
  prompt: Prompt,
  entries: readonly TokenLogprobs[],
  tokenizer: Tokenizer | null,
  skipSpecialTokens: boolean,
): LogprobToken[] {
  const detokenizer = tokenizer === null ? null : new Detokenizer(tokenizer.table, { skipSpecialTokens })
  let offset = 0
  return Array.from(prompt.tokenIds, (tokenId, index) => {
    const token = { tokenId, offset, entry: index === 0 ? null : (entries[index - 1] ?? null) }
    offset += countCodePoints(detokenizer?.push(tokenId) ?? '')
    return token
  })
}
