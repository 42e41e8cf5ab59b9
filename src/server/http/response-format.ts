// The seams between a generation and the dialects it is answered in.

import type { LorikeetError } from '../../errors.ts'
import type { Choice, ChoiceDelta } from '../generation/choice.ts'
import type { Generation, GenerationListener, GenerationRequest, Usage } from '../generation/generation.ts'
import type { StreamOptions } from '../request/generation-call.ts'

/** Members of one streamed event beside id, object, created, model and usage. */
export interface ChunkBody {
  readonly choices: readonly unknown[]
  readonly [extra: string]: unknown
}

export interface ResponseFormat {
  readonly idPrefix: string
  readonly unaryObject: string
  readonly chunkObject: string
  /** The first event of a choice says something even when its text is empty. */
  readonly hasOpening: boolean
  /** Members of the whole answer beside id, object, created, model and usage. */
  unary(generation: Generation): Record<string, unknown>
  /** Events for what a choice has to say; `isFirst` when nothing of it was sent yet. */
  chunks(choice: Choice, delta: ChoiceDelta, isFirst: boolean): ChunkBody[]
}

/** An answer that is streamed; until it is open a failure still gets a status of its own. */
export interface StreamedAnswer extends Omit<GenerationListener, 'onFailed'> {
  readonly isOpen: boolean
  /** The generation was started; outputs may have come before. */
  attach(generation: Generation): void
  /** Ends an open answer with an error. */
  fail(error: LorikeetError): void
}

export function usageBody({ numPromptTokens, numOutputTokens, numCachedTokens }: Usage): Record<string, unknown> {
  return {
    prompt_tokens: numPromptTokens,
    total_tokens: numPromptTokens + numOutputTokens,
    completion_tokens: numOutputTokens,
    prompt_tokens_details: { cached_tokens: numCachedTokens },
  }
}

export interface Call {
  readonly request: GenerationRequest
  readonly format: ResponseFormat
  /** Null = one JSON answer. */
  readonly stream: StreamOptions | null
}

/** Members every event of a call shares. */
export function responseHead(call: Call, object: string): Record<string, unknown> {
  const { responseId, modelName, arrivedAtMs } = call.request
  return { id: responseId, object, created: Math.floor(arrivedAtMs / 1000), model: modelName }
}
