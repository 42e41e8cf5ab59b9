// Changes of the adapter list for those who watch it.

import type { AdapterInfo } from '../../engine/messages.ts'
import type { AdapterAdmin, LoadEvent } from '../generation/adapter-admin.ts'
import type { EnginePort } from '../generation/engine-port.ts'
import { adapterMessage, unlistedAdapter } from './adapter-message.ts'
import { AdapterState, type WatchResponse } from './generated/lorikeet/v1/adapters.ts'
import { clean } from './grpc-error.ts'

// The engine itself sends its list this often at most; looking is one comparison of references.
const POLL_MS = 100

/** The engine's list is compared with what was told last, only while somebody watches. */
export class AdapterWatch {
  readonly #engine: EnginePort
  readonly #admin: AdapterAdmin
  readonly #watchers = new Set<(response: WatchResponse) => void>()
  #told: ReadonlyMap<string, AdapterInfo> = new Map()
  #list: readonly AdapterInfo[] = []
  #stop: (() => void) | null = null

  constructor(engine: EnginePort, admin: AdapterAdmin) {
    this.#engine = engine
    this.#admin = admin
  }

  /** Tells `watcher` what is there, then each change; returns how to end that. */
  add(watcher: (response: WatchResponse) => void): () => void {
    if (this.#stop === null) this.#begin()
    this.#poll()
    for (const info of this.#list) watcher({ adapter: adapterMessage(info), isSnapshot: true, error: '' })
    this.#watchers.add(watcher)
    return () => {
      this.#watchers.delete(watcher)
      if (this.#watchers.size === 0) this.#end()
    }
  }

  #begin(): void {
    this.#remember(this.#engine.adapters())
    const timer = setInterval(() => this.#poll(), POLL_MS)
    timer.unref()
    const stopListening = this.#admin.onLoad((event) => this.#onLoad(event))
    this.#stop = () => {
      clearInterval(timer)
      stopListening()
    }
  }

  #end(): void {
    this.#stop?.()
    this.#stop = null
  }

  #onLoad(event: LoadEvent): void {
    const isFailed = event.type === 'failed'
    const state = isFailed ? AdapterState.FAILED : AdapterState.LOADING
    const adapter = unlistedAdapter(event.name, event.path, state)
    this.#tell({ adapter, isSnapshot: false, error: isFailed ? clean(event.error.message) : '' })
  }

  #poll(): void {
    const list = this.#engine.adapters()
    if (list === this.#list) return
    const before = this.#told
    this.#remember(list)
    for (const [name, info] of before) {
      if (this.#told.has(name)) continue
      const adapter = { ...adapterMessage(info), state: AdapterState.REMOVED }
      this.#tell({ adapter, isSnapshot: false, error: '' })
    }
    for (const [name, info] of this.#told) {
      const last = before.get(name)
      if (last !== undefined && last.id === info.id && adapterMessage(last).state === adapterMessage(info).state) continue
      this.#tell({ adapter: adapterMessage(info), isSnapshot: false, error: '' })
    }
  }

  #remember(list: readonly AdapterInfo[]): void {
    this.#list = list
    this.#told = new Map(list.map((info) => [info.name, info]))
  }

  #tell(response: WatchResponse): void {
    for (const watcher of this.#watchers) watcher(response)
  }
}
