// Answers of /v1/chat/completions.

import type { TokenLogprobs } from '../../engine/messages.ts'
import type { Choice, ChoiceDelta } from '../generation/choice.ts'
import type { Generation } from '../generation/generation.ts'
import type { Prompt } from '../generation/prompt.ts'
import type { ResultOptions } from '../request/generation-call.ts'
import { type ChatLogprobEntry, chatLogprobs, promptLogprobs } from './logprobs.ts'
import type { ChunkBody, ResponseFormat } from './response-format.ts'

export class ChatFormat implements ResponseFormat {
  readonly idPrefix = 'chatcmpl-'
  readonly unaryObject = 'chat.completion'
  readonly chunkObject = 'chat.completion.chunk'
  readonly hasOpening = true
  readonly #options: ResultOptions
  readonly #prompts: readonly Prompt[]
  readonly #role: string

  /** `role` is that of the answer. */
  constructor(options: ResultOptions, prompts: readonly Prompt[], role: string) {
    this.#options = options
    this.#prompts = prompts
    this.#role = role
  }

  unary(generation: Generation): Record<string, unknown> {
    const { returnsTokenIds, numPromptTop, names } = this.#options
    const choices = generation.choices.map((choice) => {
      const delta = choice.take()
      return {
        index: choice.index,
        message: this.#message(this.#echoText + delta.text),
        logprobs: this.#logprobs(delta.logprobs),
        finish_reason: choice.finish?.reason ?? null,
        stop_reason: choice.finish?.stop ?? null,
        token_ids: returnsTokenIds ? delta.tokenIds : null,
      }
    })
    const scored = generation.choices[0]?.promptLogprobs ?? []
    return {
      choices,
      prompt_logprobs: numPromptTop === null ? null : promptLogprobs(scored, numPromptTop, names),
      prompt_token_ids: returnsTokenIds ? this.#promptTokenIds() : null,
    }
  }

  chunks(choice: Choice, delta: ChoiceDelta, isFirst: boolean): ChunkBody[] {
    const { returnsTokenIds } = this.#options
    const chunks: ChunkBody[] = []
    if (isFirst) {
      const opening = { index: choice.index, delta: { role: this.#role, content: '' }, logprobs: null, finish_reason: null }
      const promptIds = returnsTokenIds && choice.index === 0 ? { prompt_token_ids: this.#promptTokenIds() } : {}
      chunks.push({ choices: [opening], ...promptIds })
      if (this.#echoText !== '') chunks.push(contentChunk(choice, this.#echoText, null, null, {}))
    }
    // The opening stands for a first token without text.
    if (isFirst && delta.text === '' && choice.finish === null && !returnsTokenIds && delta.logprobs.length === 0) return chunks
    const ids = returnsTokenIds ? { token_ids: delta.tokenIds } : {}
    chunks.push(contentChunk(choice, delta.text, this.#logprobs(delta.logprobs), choice.finish, ids))
    return chunks
  }

  get #echoText(): string {
    return this.#options.echoTexts?.[0] ?? ''
  }

  #message(content: string): Record<string, unknown> {
    const absent = { refusal: null, annotations: null, audio: null, function_call: null, reasoning: null }
    return { role: this.#role, content, ...absent }
  }

  #logprobs(entries: readonly TokenLogprobs[]): { content: ChatLogprobEntry[] } | null {
    const { numTop, names } = this.#options
    return numTop === null ? null : { content: chatLogprobs(entries, numTop, names) }
  }

  #promptTokenIds(): number[] {
    return [...(this.#prompts[0] as Prompt).tokenIds]
  }
}

function contentChunk(
  choice: Choice,
  content: string,
  logprobs: { content: ChatLogprobEntry[] } | null,
  finish: Choice['finish'],
  ids: Record<string, unknown>,
): ChunkBody {
  const delta = content === '' ? {} : { content }
  const reasons = { finish_reason: finish?.reason ?? null, ...(finish === null ? {} : { stop_reason: finish.stop }) }
  return { choices: [{ index: choice.index, delta, logprobs, ...reasons, ...ids }] }
}
