// The streamed answer of /generate_stream: one event a token, the last with the whole text. No end mark.

import type { FastifyReply } from 'fastify'
import type { LorikeetError } from '../../../errors.ts'
import type { Tokenizer } from '../../../tokenizer/tokenizer.ts'
import type { Choice } from '../../generation/choice.ts'
import type { Generation } from '../../generation/generation.ts'
import type { ReadLoraxCall } from '../../request/lorax-call.ts'
import type { StreamedAnswer } from '../response-format.ts'
import { EventStream } from '../sse.ts'
import { INCOMPLETE, loraxErrorBody } from './lorax-error.ts'
import { LoraxSequence, type LoraxStep, loraxFinish } from './lorax-sequence.ts'

/** A reader that falls behind gets the events it missed in one write. */
export class LoraxStream implements StreamedAnswer {
  readonly #reply: FastifyReply
  readonly #call: ReadLoraxCall
  readonly #sequence: LoraxSequence
  readonly #onFailed: (error: LorikeetError) => void
  #events: EventStream | null = null
  #generation: Generation | null = null
  #isFinished = false
  #isEnded = false

  /** `onFailed` hears of a failure after the answer was opened. */
  constructor(reply: FastifyReply, call: ReadLoraxCall, tokenizer: Tokenizer, onFailed: (error: LorikeetError) => void) {
    this.#reply = reply
    this.#call = call
    this.#sequence = new LoraxSequence(tokenizer, call.result)
    this.#onFailed = onFailed
  }

  get isOpen(): boolean {
    return this.#events !== null
  }

  attach(generation: Generation): void {
    this.#generation = generation
    for (const choice of generation.choices) this.onOutput(choice)
    if (this.#isFinished) this.onFinished()
  }

  onOutput(choice: Choice): void {
    // The last token carries the whole text, so it waits for the finish; after a stop string that comes a step later.
    if (this.#generation === null || choice.finish !== null || choice.isStoppedByText) return
    if (choice.pending.tokenIds.length === 0) return
    const events = this.#open()
    if (events.isWritable) events.send(this.#sequence.take(choice).map(event))
  }

  onFinished(): void {
    this.#isFinished = true
    if (this.#generation === null) return
    const events = this.#open()
    if (events.isWritable) this.#end(events, this.#generation)
  }

  fail(error: LorikeetError): void {
    if (this.#isEnded || this.#events === null) return
    this.#isEnded = true
    this.#onFailed(error)
    this.#events.end([JSON.stringify(loraxErrorBody(error))])
  }

  #open(): EventStream {
    if (this.#events !== null) return this.#events
    this.#reply.hijack()
    this.#events = new EventStream(this.#reply.raw, this.#reply.getHeaders())
    this.#events.onDrain(() => this.#onDrain())
    return this.#events
  }

  #onDrain(): void {
    if (this.#isEnded || this.#events === null || this.#generation === null) return
    if (this.#isFinished) this.#end(this.#events, this.#generation)
    else for (const choice of this.#generation.choices) this.onOutput(choice)
  }

  #end(events: EventStream, generation: Generation): void {
    if (this.#isEnded) return
    this.#isEnded = true
    const choice = generation.choices[0]
    const steps = choice === undefined ? [] : this.#sequence.take(choice)
    const last = steps.pop()
    const reason = choice === undefined ? null : loraxFinish(choice)
    const end =
      last === undefined || reason === null ? JSON.stringify(INCOMPLETE.body) : this.#lastEvent(last, reason, generation)
    events.end([...steps.map(event), end])
  }

  #lastEvent(step: LoraxStep, finishReason: string, { choices, usage }: Generation): string {
    const { result } = this.#call
    const details = {
      finish_reason: finishReason,
      prompt_tokens: usage.numPromptTokens,
      generated_tokens: choices[0]?.numOutputTokens ?? 0,
      seed: result.seed,
    }
    const text = result.isFullText ? result.inputs + this.#sequence.text : this.#sequence.text
    return JSON.stringify({ ...stepBody(step), generated_text: text, details: result.hasDetails ? details : null })
  }
}

function event(step: LoraxStep): string {
  return JSON.stringify({ ...stepBody(step), generated_text: null, details: null })
}

function stepBody({ token, topTokens }: LoraxStep): Record<string, unknown> {
  return topTokens.length === 0 ? { token } : { token, top_tokens: topTokens }
}
