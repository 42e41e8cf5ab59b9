// One GenerateStream call: decides which event is sent when.

import type { ServerWritableStream } from '@grpc/grpc-js'
import type { LorikeetError } from '../../errors.ts'
import type { Choice } from '../generation/choice.ts'
import type { Generation, GenerationListener, GenerationRequest } from '../generation/generation.ts'
import { deltaOf, finishedOf, type GenerateOptions, usageOf } from './generate-format.ts'
import type { GenerateRequest, GenerateStreamResponse } from './generated/lorikeet/v1/inference.ts'

export interface EventOptions extends GenerateOptions {
  /** Tokens a Delta. */
  readonly interval: number
  /** Deltas are sent for their token ids even when they have no text. */
  readonly sendsEveryToken: boolean
}

/** Sends by interval and by the reader's pace: what a slow reader missed comes in one Delta a choice. */
export class GenerateStream implements GenerationListener {
  readonly #call: ServerWritableStream<GenerateRequest, GenerateStreamResponse>
  readonly #options: EventOptions
  readonly #onFailure: (error: LorikeetError) => void
  /** Choices of which something was sent. */
  readonly #opened = new Set<Choice>()
  /** Choices whose Finished was sent. */
  readonly #closed = new Set<Choice>()
  #generation: Generation | null = null
  #isBlocked = false
  #isFinished = false

  constructor(
    call: ServerWritableStream<GenerateRequest, GenerateStreamResponse>,
    options: EventOptions,
    onFailure: (error: LorikeetError) => void,
  ) {
    this.#call = call
    this.#options = options
    this.#onFailure = onFailure
    call.on('drain', () => this.#onDrain())
  }

  /** Sends Started, then what came while the generation was being started. */
  attach(generation: Generation): void {
    this.#generation = generation
    this.#send({ event: { $case: 'started', started: started(generation.request, this.#options) } })
    for (const choice of generation.choices) this.onOutput(choice)
    if (this.#isFinished) this.onFinished()
  }

  onOutput(choice: Choice): void {
    if (this.#generation !== null && !this.#isBlocked && this.#isDue(choice)) this.#flush(choice)
  }

  onFinished(): void {
    this.#isFinished = true
    if (this.#generation !== null && !this.#isBlocked) this.#end(this.#generation)
  }

  onFailed(error: LorikeetError): void {
    this.#onFailure(error)
  }

  #onDrain(): void {
    this.#isBlocked = false
    if (this.#generation === null || this.#call.cancelled) return
    if (this.#isFinished) this.#end(this.#generation)
    else for (const choice of this.#generation.choices) this.onOutput(choice)
  }

  #end(generation: Generation): void {
    for (const choice of generation.choices) if (this.#isDue(choice)) this.#flush(choice)
    this.#send({ event: { $case: 'usage', usage: usageOf(generation.usage) } })
    this.#call.end()
  }

  #isDue(choice: Choice): boolean {
    if (choice.finish !== null) return !this.#closed.has(choice)
    const { text, tokenIds } = choice.pending
    if (text === '' && !(this.#options.sendsEveryToken && tokenIds.length > 0)) return false
    return tokenIds.length >= this.#options.interval || !this.#opened.has(choice)
  }

  #flush(choice: Choice): void {
    const isFirst = !this.#opened.has(choice)
    if (isFirst) this.#opened.add(choice)
    const delta = deltaOf(choice, choice.take(), isFirst, this.#options)
    if (delta.text !== '' || delta.tokenIds.length > 0 || delta.logprobs.length > 0) {
      this.#send({ event: { $case: 'delta', delta } })
    }
    if (choice.finish === null) return
    this.#closed.add(choice)
    this.#send({ event: { $case: 'finished', finished: finishedOf(choice) } })
  }

  #send(message: GenerateStreamResponse): void {
    if (!this.#call.write(message)) this.#isBlocked = true
  }
}

function started({ responseId, modelName, adapter, prompts }: GenerationRequest, { result }: EventOptions) {
  const tokenIds = prompts[0]?.tokenIds ?? new Int32Array(0)
  return {
    id: responseId,
    model: modelName,
    adapter: adapter?.name ?? '',
    promptTokens: tokenIds.length,
    promptTokenIds: result.returnsTokenIds ? [...tokenIds] : [],
  }
}
