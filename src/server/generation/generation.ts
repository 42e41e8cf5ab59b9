// One client call inside the engine: prompts x samples requests, started together and ended together.

import { requestId } from '../../core/ids.ts'
import type { SamplingParams } from '../../core/sampling-params.ts'
import type { AdapterInfo, NewRequest, RequestOutput } from '../../engine/messages.ts'
import { asLorikeetError, LorikeetError } from '../../errors.ts'
import { Choice, type ChoiceOptions } from './choice.ts'
import type { EnginePort } from './engine-port.ts'
import type { Prompt } from './prompt.ts'
import type { TraceHeaders } from './trace-headers.ts'

export interface GenerationRequest {
  /** Of the response; several calls may share it, so engine ids add a serial number. */
  readonly responseId: string
  readonly prompts: readonly Prompt[]
  /** Samples a prompt; sample i runs with seed + i. */
  readonly numSamples: number
  /** One a prompt: limits differ where they were filled in. */
  readonly sampling: readonly SamplingParams[]
  readonly adapter: AdapterInfo | null
  /** Name the response carries. */
  readonly modelName: string
  readonly priority: number
  readonly cacheSalt: string
  /** Epoch milliseconds. */
  readonly arrivedAtMs: number
  /** Trace the call belongs to; null = none was named. */
  readonly trace: TraceHeaders | null
  readonly text: Omit<ChoiceOptions, 'contextTokenIds' | 'minTokens'>
  /** The prompt decides how the output's first word is spaced: for echo and for continued messages. */
  readonly isContinuation: boolean
}

export interface GenerationListener {
  /** A choice has new output, or finished. */
  onOutput(choice: Choice): void
  /** Every choice has finished. */
  onFinished(): void
  /** A choice failed; the others are aborted and nothing more follows. */
  onFailed(error: LorikeetError): void
}

/** A call in a trace. */
export interface RequestSpan {
  /** W3C `traceparent` of this span, for the answer. */
  readonly traceparent: string
  /** The call has ended in the engine. */
  end(generation: Generation): void
}

export interface Usage {
  readonly numPromptTokens: number
  readonly numOutputTokens: number
  readonly numCachedTokens: number
}

let nextSerial = 0

export class Generation {
  readonly request: GenerationRequest
  readonly choices: readonly Choice[]
  /** Null where no traces are sent. */
  span: RequestSpan | null = null
  /** Called once when the engine holds nothing of this call any more. */
  onEnded: () => void = () => {}
  readonly #engine: EnginePort
  readonly #listener: GenerationListener
  #numRunning = 0
  #isListening = true

  constructor(engine: EnginePort, request: GenerationRequest, listener: GenerationListener) {
    this.#engine = engine
    this.#listener = listener
    this.request = request
    this.choices = request.prompts.flatMap((prompt, promptIndex) =>
      Array.from({ length: request.numSamples }, (_, sampleIndex) => {
        const id = requestId(`${request.responseId}-${nextSerial++}`)
        return new Choice(id, promptIndex, promptIndex * request.numSamples + sampleIndex, {
          ...request.text,
          minTokens: request.sampling[promptIndex]?.minTokens ?? 0,
          contextTokenIds: request.isContinuation ? prompt.tokenIds : null,
        })
      }),
    )
  }

  get numRunning(): number {
    return this.#numRunning
  }

  get usage(): Usage {
    const { prompts, numSamples } = this.request
    let numPromptTokens = 0
    let numOutputTokens = 0
    let numCachedTokens = 0
    for (const prompt of prompts) numPromptTokens += prompt.tokenIds.length
    for (const choice of this.choices) {
      numOutputTokens += choice.numOutputTokens
      if (choice.index % numSamples === 0) numCachedTokens += choice.engineFinish?.metrics.numCachedTokens ?? 0
    }
    return { numPromptTokens, numOutputTokens, numCachedTokens }
  }

  start(): void {
    this.#numRunning = this.choices.length
    for (const choice of this.choices) {
      try {
        this.#engine.submit(this.#newRequest(choice), (output) => this.#accept(choice, output))
      } catch (error) {
        this.#numRunning--
        this.#fail(asLorikeetError(error))
      }
    }
    if (this.#numRunning === 0) this.onEnded()
  }

  /** Stops listening and ends every sequence within one engine step. */
  abort(): void {
    this.#isListening = false
    this.#engine.abort(this.choices.filter((choice) => choice.engineFinish === null).map((choice) => choice.requestId))
  }

  #newRequest(choice: Choice): NewRequest {
    const { request } = this
    const sampling = request.sampling[choice.promptIndex] as SamplingParams
    const sampleIndex = choice.index % request.numSamples
    return {
      requestId: choice.requestId,
      promptTokenIds: (request.prompts[choice.promptIndex] as Prompt).tokenIds,
      adapterId: request.adapter?.id ?? null,
      sampling: sampling.seed === null || sampleIndex === 0 ? sampling : { ...sampling, seed: sampling.seed + sampleIndex },
      priority: request.priority,
      cacheSalt: request.cacheSalt,
      arrivedAtMs: request.arrivedAtMs,
    }
  }

  #accept(choice: Choice, output: RequestOutput): void {
    if (choice.engineFinish !== null) return
    choice.accept(output)
    if (choice.isStoppedByText) this.#engine.abort([choice.requestId])
    if (choice.engineFinish !== null) this.#numRunning--
    if (this.#isListening) this.#notify(choice)
    if (this.#numRunning === 0) this.onEnded()
  }

  #notify(choice: Choice): void {
    if (choice.failure !== null) {
      this.#fail(this.#inClientsWords(choice.failure))
      return
    }
    this.#listener.onOutput(choice)
    if (this.#isListening && this.#numRunning === 0) this.#listener.onFinished()
  }

  /** The engine knows adapters by generation; an adapter unloaded while the request was on its way has a name here. */
  #inClientsWords(error: LorikeetError): LorikeetError {
    if (error.code !== 'MODEL_NOT_FOUND') return error
    return new LorikeetError('MODEL_NOT_FOUND', { model: this.request.modelName }, { field: 'model', cause: error })
  }

  #fail(error: LorikeetError): void {
    if (!this.#isListening) return
    this.abort()
    this.#listener.onFailed(error)
  }
}
