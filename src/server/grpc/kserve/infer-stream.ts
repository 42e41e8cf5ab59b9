// ModelStreamInfer: many requests on one call, answered as they run. One that fails does not end the others.

import type { ServerDuplexStream } from '@grpc/grpc-js'
import { asLorikeetError, type LorikeetError } from '../../../errors.ts'
import type { Choice } from '../../generation/choice.ts'
import type { Generation, GenerationListener } from '../../generation/generation.ts'
import type { ServerContext } from '../../generation/server-context.ts'
import { type CallInfo, callInfo, initialMetadata } from '../calls.ts'
import type { ModelInferRequest, ModelInferResponse, ModelStreamInferResponse } from '../generated/inference/grpc_service.ts'
import { toFailure } from '../grpc-error.ts'
import { type InferCall, readInferCall } from './infer-request.ts'
import { InferResponses } from './infer-response.ts'

type StreamCall = ServerDuplexStream<ModelInferRequest, ModelStreamInferResponse>

export function modelStreamInfer(call: StreamCall, context: ServerContext): void {
  const stream = new InferStream(call, context)
  call.on('data', (request: ModelInferRequest) => void stream.begin(request))
  call.on('end', () => stream.endInput())
}

class InferStream {
  readonly #call: StreamCall
  readonly #context: ServerContext
  readonly #info: CallInfo
  readonly #runs = new Set<InferRun>()
  #numReading = 0
  #isInputEnded = false
  #isBlocked = false

  constructor(call: StreamCall, context: ServerContext) {
    this.#call = call
    this.#context = context
    this.#info = callInfo(call)
    call.sendMetadata(initialMetadata(this.#info))
    call.on('drain', () => this.#onDrain())
    this.#info.onCancelled(() => {
      for (const run of this.#runs) run.abort()
      this.#runs.clear()
    })
  }

  get isBlocked(): boolean {
    return this.#isBlocked
  }

  async begin(request: ModelInferRequest): Promise<void> {
    this.#numReading++
    try {
      const info = { ...this.#info, arrivedAtMs: performance.timeOrigin + performance.now() }
      const call = await readInferCall(request, info, true, this.#context)
      // The client may have left while an adapter was loading.
      if (!this.#call.cancelled) this.#start(call)
    } catch (thrown) {
      this.fail(request, asLorikeetError(thrown))
    } finally {
      this.#numReading--
      this.#endIfDone()
    }
  }

  endInput(): void {
    this.#isInputEnded = true
    this.#endIfDone()
  }

  send(inferResponse: ModelInferResponse): void {
    if (!this.#call.write({ errorMessage: '', inferResponse })) this.#isBlocked = true
  }

  fail({ modelName, id }: ModelInferRequest, error: LorikeetError): void {
    const { details } = toFailure(error, this.#info.requestId, this.#context.logger)
    const inferResponse = {
      modelName,
      modelVersion: '',
      id,
      parameters: {},
      outputs: [],
      rawOutputContents: [],
    }
    if (!this.#call.write({ errorMessage: details, inferResponse })) this.#isBlocked = true
  }

  forget(run: InferRun): void {
    this.#runs.delete(run)
    this.#endIfDone()
  }

  #start(call: InferCall): void {
    const run = new InferRun(this, call)
    this.#runs.add(run)
    try {
      run.attach(this.#context.generations.start(call.request, run))
    } catch (error) {
      this.#runs.delete(run)
      throw error
    }
  }

  #onDrain(): void {
    this.#isBlocked = false
    for (const run of [...this.#runs]) run.flush()
  }

  #endIfDone(): void {
    if (this.#isInputEnded && this.#numReading === 0 && this.#runs.size === 0) this.#call.end()
  }
}

/** One request of a stream. */
class InferRun implements GenerationListener {
  readonly #stream: InferStream
  readonly #call: InferCall
  readonly #responses: InferResponses
  #generation: Generation | null = null
  #isFinished = false

  constructor(stream: InferStream, call: InferCall) {
    this.#stream = stream
    this.#call = call
    this.#responses = new InferResponses(call, call.request.numSamples)
  }

  /** Outputs that came while the generation was being started are sent now. */
  attach(generation: Generation): void {
    this.#generation = generation
    this.flush()
  }

  abort(): void {
    this.#generation?.abort()
  }

  onOutput(_choice: Choice): void {
    this.flush()
  }

  onFinished(): void {
    this.#isFinished = true
    this.flush()
  }

  onFailed(error: LorikeetError): void {
    this.#stream.fail(this.#call.inferRequest, error)
    this.#stream.forget(this)
  }

  /** Sends what is due, unless the reader is behind: then it comes merged, later. */
  flush(): void {
    const generation = this.#generation
    if (generation === null || this.#stream.isBlocked) return
    if (this.#isFinished) this.#end(generation)
    else if (
      this.#call.isStream &&
      generation.numRunning > 0 &&
      generation.choices.some(({ pending }) => pending.text !== '')
    ) {
      this.#stream.send(this.#responses.take(generation, false))
    }
  }

  #end(generation: Generation): void {
    this.#generation = null
    const { hasEmptyFinal } = this.#call
    this.#stream.send(this.#responses.take(generation, !hasEmptyFinal))
    if (hasEmptyFinal) this.#stream.send(this.#responses.emptyFinal())
    this.#stream.forget(this)
  }
}
