// How the client reaches an engine: a worker thread in the server, the same process in tests.

import { SHARE_ENV, Worker } from 'node:worker_threads'
import type { Config } from '../config.ts'
import type { EngineCommand, EngineEvent } from './messages.ts'

/** What an engine thread is started with. */
export interface EngineStart {
  readonly config: Config
  /** Adapter ids count up from here, so that no id of an engine that died names another adapter now. */
  readonly firstAdapterId: number
}

export interface EngineLink {
  post(command: EngineCommand): void
  /** Ends the engine whatever it does; `onExit` may still be called. */
  terminate(): Promise<void>
}

export interface EngineLinkListener {
  onEvent(event: EngineEvent): void
  /** The engine is gone; nothing follows. */
  onExit(reason: string): void
}

export type EngineLinkFactory = (start: EngineStart, listener: EngineLinkListener) => EngineLink

/** Runs each engine on a worker thread whose entry is `threadUrl` (a built .js file: Node 20 cannot start one from .ts). */
export function workerLinks(threadUrl: URL): EngineLinkFactory {
  return (start, listener) => {
    // The process's own environment: native libraries do not see what a thread sets in a copy.
    const worker = new Worker(threadUrl, { workerData: start, name: 'lorikeet-engine', env: SHARE_ENV })
    let reason: string | null = null
    worker.on('message', (event: EngineEvent) => listener.onEvent(event))
    worker.on('error', (error) => {
      reason = error instanceof Error ? error.message : String(error)
    })
    worker.on('exit', (code) => listener.onExit(reason ?? `its thread exited with code ${code}`))
    return {
      post: (command) => worker.postMessage(command),
      terminate: async () => {
        await worker.terminate()
      },
    }
  }
}
