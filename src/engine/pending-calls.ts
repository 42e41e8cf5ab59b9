import type { LorikeetError } from '../errors.ts'
import type { AdapterInfo } from './messages.ts'

interface PendingCall {
  readonly resolve: (result: AdapterInfo | null) => void
  readonly reject: (error: LorikeetError) => void
}

/** Calls across a thread, correlated by id. Each settles exactly once. */
export class PendingCalls {
  readonly #calls = new Map<number, PendingCall>()
  #lastCallId = 0

  /** `send` gets the id to put into the message. */
  open(send: (callId: number) => void): Promise<AdapterInfo | null> {
    const callId = ++this.#lastCallId
    return new Promise((resolve, reject) => {
      this.#calls.set(callId, { resolve, reject })
      send(callId)
    })
  }

  resolve(callId: number, result: AdapterInfo | null): void {
    this.#take(callId)?.resolve(result)
  }

  reject(callId: number, error: LorikeetError): void {
    this.#take(callId)?.reject(error)
  }

  rejectAll(error: LorikeetError): void {
    for (const callId of [...this.#calls.keys()]) this.reject(callId, error)
  }

  #take(callId: number): PendingCall | undefined {
    const call = this.#calls.get(callId)
    this.#calls.delete(callId)
    return call
  }
}
