import type { RequestId } from '../core/ids.ts'
import { invariant } from '../core/invariant.ts'
import { asLorikeetError, type LorikeetError } from '../errors.ts'
import { refusalOf } from './finish.ts'
import type { NewRequest, RequestOutput } from './messages.ts'

export type OutputSink = (output: RequestOutput) => void

interface PendingRequest {
  readonly request: NewRequest
  readonly sink: OutputSink
}

/** Requests whose finish is still owed. Each gets exactly one. */
export class PendingRequests {
  readonly #requests = new Map<RequestId, PendingRequest>()
  readonly #onSinkError: (requestId: RequestId) => void
  #onDrained: (() => void) | null = null

  constructor(onSinkError: (requestId: RequestId) => void) {
    this.#onSinkError = onSinkError
  }

  get size(): number {
    return this.#requests.size
  }

  has(requestId: RequestId): boolean {
    return this.#requests.has(requestId)
  }

  add(request: NewRequest, sink: OutputSink): void {
    invariant(!this.#requests.has(request.requestId), `request id ${request.requestId} is in use`)
    this.#requests.set(request.requestId, { request, sink })
  }

  /** Outputs of requests that have ended are dropped: the engine may not have heard of the end yet. */
  deliver(output: RequestOutput): void {
    const pending = this.#requests.get(output.requestId)
    if (pending === undefined) return
    if (output.finish !== null) this.#requests.delete(output.requestId)
    try {
      pending.sink(output)
    } catch (error) {
      // A sink is one client's; what it throws must not cost the others their outputs.
      process.emitWarning(asLorikeetError(error))
      this.#onSinkError(output.requestId)
    }
    if (this.#requests.size === 0) this.#onDrained?.()
  }

  fail(requestId: RequestId, error: LorikeetError): void {
    const pending = this.#requests.get(requestId)
    if (pending !== undefined) this.deliver(refusalOf(pending.request, error, Date.now()))
  }

  failAll(error: LorikeetError): void {
    for (const requestId of [...this.#requests.keys()]) this.fail(requestId, error)
  }

  /** Resolves once none is left. */
  drained(): Promise<void> {
    if (this.#requests.size === 0) return Promise.resolve()
    return new Promise((resolve) => {
      this.#onDrained = resolve
    })
  }
}
