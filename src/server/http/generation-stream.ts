// One streamed answer: decides what is sent when.

import type { FastifyReply } from 'fastify'
import type { LorikeetError } from '../../errors.ts'
import type { Choice } from '../generation/choice.ts'
import type { Generation } from '../generation/generation.ts'
import type { ServerContext } from '../generation/server-context.ts'
import type { StreamOptions } from '../request/generation-call.ts'
import { errorBody } from './error-body.ts'
import { type Call, type ChunkBody, responseHead, type StreamedAnswer, usageBody } from './response-format.ts'
import { EventStream } from './sse.ts'

const END_MARK = '[DONE]'

/** Sends by interval, by the reader's pace, and all of the rest at the end. */
export class GenerationStream implements StreamedAnswer {
  readonly #reply: FastifyReply
  readonly #call: Call
  readonly #options: StreamOptions
  readonly #context: ServerContext
  readonly #head: string
  readonly #isTextless: boolean
  /** Choices of which something was sent. */
  readonly #opened = new Set<Choice>()
  /** Choices whose last chunk was sent. */
  readonly #closed = new Set<Choice>()
  #events: EventStream | null = null
  #generation: Generation | null = null
  #isFinished = false
  #isEnded = false

  constructor(reply: FastifyReply, call: Call, options: StreamOptions, context: ServerContext) {
    this.#reply = reply
    this.#call = call
    this.#options = options
    this.#context = context
    this.#head = JSON.stringify(responseHead(call, call.format.chunkObject)).slice(0, -1)
    this.#isTextless = context.text.tokenizer === null
  }

  get isOpen(): boolean {
    return this.#events !== null
  }

  /** Outputs that came while the generation was being started are sent now. */
  attach(generation: Generation): void {
    this.#generation = generation
    for (const choice of generation.choices) this.onOutput(choice)
    if (this.#isFinished) this.onFinished()
  }

  onOutput(choice: Choice): void {
    // The very last chunk goes out in one write with the end mark.
    if (this.#generation === null || this.#generation.numRunning === 0 || !this.#isDue(choice)) return
    const events = this.#open()
    if (events.isWritable) events.send(this.#take(choice))
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
    this.#context.logger.error({ requestId: this.#call.request.responseId, err: error }, 'stream failed')
    this.#events.end([JSON.stringify(errorBody(error, this.#context.config.server.errorStyle)), END_MARK])
  }

  #open(): EventStream {
    if (this.#events !== null) return this.#events
    this.#reply.hijack()
    this.#events = new EventStream(this.#reply.raw, this.#reply.getHeaders())
    this.#events.onDrain(() => this.#onDrain())
    return this.#events
  }

  /** A reader that fell behind gets everything since then in one event a choice. */
  #onDrain(): void {
    if (this.#isEnded || this.#events === null || this.#generation === null) return
    if (this.#isFinished) this.#end(this.#events, this.#generation)
    else this.#events.send(this.#generation.choices.flatMap((choice) => (this.#isDue(choice) ? this.#take(choice) : [])))
  }

  #end(events: EventStream, generation: Generation): void {
    if (this.#isEnded) return
    this.#isEnded = true
    const last = generation.choices.flatMap((choice) => (this.#isDue(choice) ? this.#take(choice) : []))
    if (this.#options.includesUsage) last.push(this.#event({ choices: [], usage: usageBody(generation.usage) }))
    events.end([...last, END_MARK])
  }

  #isDue(choice: Choice): boolean {
    const { text, tokenIds } = choice.pending
    if (choice.finish !== null) return !this.#closed.has(choice)
    const isWorthSending = text !== '' || this.#isTextless || this.#options.sendsEveryToken
    if (!this.#opened.has(choice)) return tokenIds.length > 0 && (isWorthSending || this.#call.format.hasOpening)
    return tokenIds.length >= this.#options.interval && isWorthSending
  }

  #take(choice: Choice): string[] {
    const isFirst = !this.#opened.has(choice)
    this.#opened.add(choice)
    if (choice.finish !== null) this.#closed.add(choice)
    return this.#call.format.chunks(choice, choice.take(), isFirst).map((chunk) => this.#event(this.#withUsage(chunk)))
  }

  #withUsage(chunk: ChunkBody): ChunkBody {
    if (!this.#options.hasContinuousUsage || this.#generation === null) return chunk
    return { ...chunk, usage: usageBody(this.#generation.usage) }
  }

  #event(chunk: ChunkBody): string {
    return `${this.#head},${JSON.stringify(chunk).slice(1)}`
  }
}
