// The engine thread's handle of the loader thread. A load that kills the thread (out of memory, a defect) costs itself alone:
// the others are sent again to a fresh one.

import type { Transferable } from 'node:worker_threads'
import type { AdapterId } from '../core/ids.ts'
import { LorikeetError } from '../errors.ts'
import type { AdapterSource } from './adapter-generation.ts'
import type { AdapterLoader } from './adapter-store.ts'
import type { LoadReply, LoadRequest } from './loader-messages.ts'
import type { CompiledAdapter } from './primitive.ts'

/** What is used of `Worker` of node:worker_threads; tests inject their own. */
export interface LoaderWorker {
  postMessage(message: unknown, transfer?: readonly Transferable[]): void
  on(event: 'message', listener: (reply: LoadReply) => void): unknown
  on(event: 'error', listener: (error: Error) => void): unknown
  on(event: 'exit', listener: (exitCode: number) => void): unknown
  terminate(): Promise<number>
  ref(): void
  unref(): void
}

export interface LoaderClientOptions {
  /** Starts a loader thread. */
  readonly start: () => LoaderWorker
  /** A doubt about an adapter that is served all the same. */
  readonly onWarning?: (adapterName: string, warning: string) => void
}

interface PendingLoad {
  readonly request: LoadRequest
  readonly resolve: (adapter: CompiledAdapter) => void
  readonly reject: (error: LorikeetError) => void
}

export class LoaderClient implements AdapterLoader {
  readonly #options: LoaderClientOptions
  /** In the order sent, which is the order served: the first one is what the thread works on. */
  readonly #pending = new Map<number, PendingLoad>()
  #worker: LoaderWorker | null = null
  #nextCallId = 1
  #isDisposed = false

  constructor(options: LoaderClientOptions) {
    this.#options = options
  }

  /** Rejects with ADAPTER_NOT_FOUND, ADAPTER_REFUSED, SAFETENSORS_INVALID, or INTERNAL when the load ends the thread. */
  load(source: AdapterSource, id: AdapterId): Promise<CompiledAdapter> {
    return new Promise((resolve, reject) => {
      if (this.#isDisposed) {
        reject(new LorikeetError('DRAINING'))
        return
      }
      const { name, path, members = null } = source
      const request: LoadRequest = { callId: this.#nextCallId++, adapterId: id, name, path, members }
      this.#pending.set(request.callId, { request, resolve, reject })
      const worker = this.#running()
      worker.ref()
      worker.postMessage(request)
    })
  }

  /** Ends the thread; loads under way reject with DRAINING. */
  async dispose(): Promise<void> {
    if (this.#isDisposed) return
    this.#isDisposed = true
    const worker = this.#worker
    this.#worker = null
    for (const { reject } of this.#pending.values()) reject(new LorikeetError('DRAINING'))
    this.#pending.clear()
    await worker?.terminate()
  }

  #running(): LoaderWorker {
    if (this.#worker !== null) return this.#worker
    const worker = this.#options.start()
    let lastError: Error | null = null
    worker.on('message', (reply) => this.#settle(reply))
    worker.on('error', (error) => {
      lastError = error
    })
    worker.on('exit', () => this.#recover(worker, lastError))
    this.#worker = worker
    return worker
  }

  #settle(reply: LoadReply): void {
    const pending = this.#pending.get(reply.callId)
    if (pending === undefined) return
    this.#pending.delete(reply.callId)
    // An idle loader must not keep the process alive.
    if (this.#pending.size === 0) this.#worker?.unref()
    if (reply.type === 'failed') {
      pending.reject(LorikeetError.fromWire(reply.error))
      return
    }
    for (const warning of reply.warnings) this.#options.onWarning?.(reply.adapter.name, warning)
    pending.resolve(reply.adapter)
  }

  #recover(worker: LoaderWorker, cause: Error | null): void {
    if (this.#worker !== worker) return
    this.#worker = null
    const [culprit] = this.#pending.values()
    if (culprit === undefined) return
    const { callId, name } = culprit.request
    this.#pending.delete(callId)
    const detail = `the loader thread ended while loading adapter '${name}' (${cause?.message ?? 'no error given'})`
    culprit.reject(new LorikeetError('INTERNAL', { detail }, cause === null ? {} : { cause }))
    if (this.#pending.size === 0) return
    const next = this.#running()
    for (const { request } of this.#pending.values()) next.postMessage(request)
  }
}
