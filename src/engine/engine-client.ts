// The server's handle of the engine: sends commands, routes outputs, mirrors the adapter list, and keeps the thread alive.
// Whatever happens to the thread, every request gets exactly one finish and every call settles.

import type { Config } from '../config.ts'
import type { RequestId } from '../core/ids.ts'
import { invariant } from '../core/invariant.ts'
import { asLorikeetError, LorikeetError } from '../errors.ts'
import { type EngineLink, type EngineLinkFactory, workerLinks } from './engine-link.ts'
import type {
  AdapterActivity,
  AdapterInfo,
  AdapterSource,
  EngineCommand,
  EngineEvent,
  EngineStats,
  ModelInfo,
  NewRequest,
} from './messages.ts'
import { PendingCalls } from './pending-calls.ts'
import { type OutputSink, PendingRequests } from './pending-requests.ts'

export type EngineState = 'starting' | 'ready' | 'draining' | 'dead'
export type StepEvent = Extract<EngineEvent, { type: 'step' }>

export interface EngineClientOptions {
  readonly config: Config
  /** Entry of the engine thread, a built .js file. */
  readonly threadUrl: URL
  /** Another way to run engines, for tests. */
  readonly links?: EngineLinkFactory
  /** Pauses before each restart in a row; when they are used up the engine stays dead. */
  readonly restartDelaysMs?: readonly number[]
}

/** A crash loop ends after about half a minute: what survives five tries is not cured by a sixth. */
const RESTART_DELAYS_MS: readonly number[] = [100, 1000, 4000, 8000, 16_000]

/** An engine that lived this long starts with a fresh count of restarts. */
const STABLE_AFTER_MS = 60_000

/** How long a thread told to stop may take to finish its step and let go of the device. */
const STOP_TIMEOUT_MS = 5000

const EMPTY_STATS: EngineStats = {
  numRunning: 0,
  numWaiting: 0,
  numWaitingForAdapter: 0,
  numBlocks: 0,
  numUsedBlocks: 0,
  numPreemptions: 0,
  numPrefixQueryTokens: 0,
  numPrefixHitTokens: 0,
  numPromptTokens: 0,
  numCachedPromptTokens: 0,
  numGenerationTokens: 0,
  adapterLoads: 0,
  adapterEvictions: 0,
  adapterBytes: 0,
  runningAdapters: [],
  waitingAdapters: [],
  numWaitingByAdapter: [],
}

export class EngineClient {
  /** Settles once the first engine is ready or could not start; restarts do not touch it. */
  readonly ready: Promise<ModelInfo>

  readonly #config: Config
  readonly #links: EngineLinkFactory
  readonly #restartDelaysMs: readonly number[]
  readonly #requests = new PendingRequests((requestId) => this.abort([requestId]))
  readonly #calls = new PendingCalls()
  /** What is registered, in load order, for the next engine should this one die. */
  readonly #sources = new Map<string, AdapterSource>()
  readonly #stepListeners = new Set<(event: StepEvent) => void>()
  readonly #adapterListeners = new Set<(activity: readonly AdapterActivity[]) => void>()
  readonly #stateListeners = new Set<(state: EngineState, error: LorikeetError | null) => void>()
  readonly #loadingListeners = new Set<(loadedBytes: number, totalBytes: number) => void>()
  readonly #warningListeners = new Set<(message: string) => void>()
  readonly #settleReady: { resolve: (model: ModelInfo) => void; reject: (error: LorikeetError) => void }

  #state: EngineState = 'starting'
  #link: EngineLink | null = null
  #model: ModelInfo | null = null
  #listedAdapters: readonly AdapterInfo[] = []
  #adaptersByName = new Map<string, AdapterInfo>()
  #stats: EngineStats = EMPTY_STATS
  #maxAdapterId = 0
  #numLoadingAdapters = 0
  #numRestarts = 0
  /** Null until the current engine is ready. */
  #readyAtMs: number | null = null
  #deathReason = 'it has not started'
  #restartTimer: NodeJS.Timeout | null = null
  #shutdown: Promise<void> | null = null
  #onStopped: (() => void) | null = null

  static start(options: EngineClientOptions): EngineClient {
    return new EngineClient(options)
  }

  private constructor(options: EngineClientOptions) {
    this.#config = options.config
    this.#links = options.links ?? workerLinks(options.threadUrl)
    this.#restartDelaysMs = options.restartDelaysMs ?? RESTART_DELAYS_MS
    const settle = { resolve: (_: ModelInfo): void => {}, reject: (_: LorikeetError): void => {} }
    this.ready = new Promise((resolve, reject) => {
      settle.resolve = resolve
      settle.reject = reject
    })
    // Who never awaits `ready` still learns of a failed start through `state`.
    this.ready.catch(() => {})
    this.#settleReady = settle
    this.#spawn()
  }

  get state(): EngineState {
    return this.#state
  }

  /** Throws ENGINE_STARTING before the first engine is ready. */
  get model(): ModelInfo {
    if (this.#model === null) throw new LorikeetError('ENGINE_STARTING')
    return this.#model
  }

  /** Starts a request; `sink` gets all its outputs, the last with `finish`, also when it cannot run at all. Never throws for that. */
  submit(request: NewRequest, sink: OutputSink): void {
    const refusal = this.#refusal()
    this.#requests.add(request, sink)
    if (refusal === null) this.#post({ type: 'add-request', request })
    else queueMicrotask(() => this.#requests.fail(request.requestId, refusal))
  }

  /** Ends requests with reason `abort` within one step. Ids that have ended already are ignored. */
  abort(requestIds: readonly RequestId[]): void {
    const pending = requestIds.filter((id) => this.#requests.has(id))
    if (pending.length > 0 && this.#link !== null) this.#post({ type: 'abort-requests', requestIds: pending })
  }

  /** Registers an adapter, or a new generation of one with `replace`. Rejects with the reason it is refused. */
  async loadAdapter(source: AdapterSource, replace: boolean): Promise<AdapterInfo> {
    const refusal = this.#refusal()
    if (refusal !== null) throw refusal
    return this.#load(source, replace)
  }

  /** Rejects with MODEL_NOT_FOUND for an unknown name. Running requests finish on it. */
  async unloadAdapter(name: string): Promise<void> {
    const refusal = this.#refusal()
    if (refusal !== null) throw refusal
    await this.#calls.open((callId) => this.#post({ type: 'unload-adapter', callId, name }))
    this.#sources.delete(name)
  }

  findAdapter(name: string): AdapterInfo | null {
    return this.#adaptersByName.get(name) ?? null
  }

  /** In load order; mixtures that requests asked for are found by name only. */
  adapters(): readonly AdapterInfo[] {
    return this.#listedAdapters
  }

  /** `loadAdapter` calls under way. */
  get numLoadingAdapters(): number {
    return this.#numLoadingAdapters
  }

  /** As of the last step, but `numWaiting` counts what is on its way to the engine too. */
  stats(): EngineStats {
    return { ...this.#stats, numWaiting: Math.max(0, this.#requests.size - this.#stats.numRunning) }
  }

  /** Calls back after every step; returns how to stop that. */
  onStep(listener: (event: StepEvent) => void): () => void {
    this.#stepListeners.add(listener)
    return () => this.#stepListeners.delete(listener)
  }

  /** Calls back with what happened to weights of adapters, after `adapters` shows it; returns how to stop that. */
  onAdapterActivity(listener: (activity: readonly AdapterActivity[]) => void): () => void {
    this.#adapterListeners.add(listener)
    return () => this.#adapterListeners.delete(listener)
  }

  /** Calls back on every change of `state`, with the error that made the engine die. */
  onStateChange(listener: (state: EngineState, error: LorikeetError | null) => void): () => void {
    this.#stateListeners.add(listener)
    return () => this.#stateListeners.delete(listener)
  }

  /** Calls back while weights are read. */
  onLoading(listener: (loadedBytes: number, totalBytes: number) => void): () => void {
    this.#loadingListeners.add(listener)
    return () => this.#loadingListeners.delete(listener)
  }

  /** Calls back with what the log should say, such as doubts about an adapter. */
  onWarning(listener: (message: string) => void): () => void {
    this.#warningListeners.add(listener)
    return () => this.#warningListeners.delete(listener)
  }

  /** Refuses new work, lets what runs finish for `graceMs`, aborts the rest, and ends the thread. Later calls join the first. */
  shutdown(graceMs: number): Promise<void> {
    this.#shutdown ??= this.#drainAndStop(graceMs)
    return this.#shutdown
  }

  // ---- life of a thread

  #spawn(): void {
    let isCurrent = true
    this.#readyAtMs = null
    const whileCurrent = (work: () => void): void => {
      if (isCurrent) work()
    }
    const die = (error: LorikeetError): void => {
      isCurrent = false
      this.#die(error)
    }
    try {
      this.#link = this.#links(
        { config: this.#config, firstAdapterId: this.#maxAdapterId + 1 },
        {
          onEvent: (event) =>
            whileCurrent(() => (event.type === 'fatal' ? die(LorikeetError.fromWire(event.error)) : this.#handle(event))),
          onExit: (reason) => whileCurrent(() => die(new LorikeetError('ENGINE_DEAD', { reason }))),
        },
      )
    } catch (error) {
      die(asLorikeetError(error))
    }
  }

  #handle(event: EngineEvent): void {
    switch (event.type) {
      case 'step':
        this.#stats = event.stats
        for (const output of event.outputs) this.#requests.deliver(output)
        for (const listener of this.#stepListeners) listener(event)
        break
      case 'reply':
        this.#calls.resolve(event.callId, event.result)
        break
      case 'failed-call':
        this.#calls.reject(event.callId, LorikeetError.fromWire(event.error))
        break
      case 'adapters':
        this.#mirror(event.adapters)
        if (event.activity.length > 0) for (const listener of this.#adapterListeners) listener(event.activity)
        break
      case 'loading':
        for (const listener of this.#loadingListeners) listener(event.loadedBytes, event.totalBytes)
        break
      case 'warning':
        for (const listener of this.#warningListeners) listener(event.message)
        break
      case 'ready':
        void this.#enterService(event.model)
        break
      case 'stopped':
        this.#onStopped?.()
    }
  }

  /** After a restart the adapters come back before the first request does. One that fails now is gone, like its file. */
  async #enterService(model: ModelInfo): Promise<void> {
    const link = this.#link
    this.#model = model
    const loads = [...this.#sources.values()].map((source) =>
      this.#load(source, false).catch((error: unknown) => {
        if (asLorikeetError(error).code !== 'ENGINE_DEAD') this.#sources.delete(source.name)
      }),
    )
    await Promise.all(loads)
    if (this.#state !== 'starting' || this.#link !== link) return
    this.#readyAtMs = performance.now()
    this.#setState('ready', null)
    this.#settleReady.resolve(model)
  }

  #die(error: LorikeetError): void {
    const hasServed = this.#model !== null
    this.#deathReason = error.code === 'ENGINE_DEAD' ? String(error.params['reason']) : error.message
    void this.#link?.terminate()
    this.#link = null
    this.#stats = { ...EMPTY_STATS, numBlocks: this.#stats.numBlocks }
    this.#mirror([])
    const dead = new LorikeetError('ENGINE_DEAD', { reason: this.#deathReason }, { cause: error })
    const isStopping = this.#shutdown !== null
    if (!isStopping) this.#setState('dead', error)
    this.#calls.rejectAll(dead)
    this.#requests.failAll(dead)
    this.#onStopped?.()
    if (!hasServed) this.#settleReady.reject(error)
    else if (!isStopping) this.#scheduleRestart()
  }

  #scheduleRestart(): void {
    if (this.#readyAtMs !== null && performance.now() - this.#readyAtMs > STABLE_AFTER_MS) this.#numRestarts = 0
    const delayMs = this.#restartDelaysMs[this.#numRestarts]
    if (delayMs === undefined) return
    this.#numRestarts++
    this.#restartTimer = setTimeout(() => {
      this.#restartTimer = null
      this.#setState('starting', null)
      this.#spawn()
    }, delayMs)
  }

  async #drainAndStop(graceMs: number): Promise<void> {
    if (this.#restartTimer !== null) clearTimeout(this.#restartTimer)
    const wasServing = this.#state === 'ready'
    this.#setState('draining', null)
    if (wasServing) await within(graceMs, this.#requests.drained())
    if (this.#link !== null) {
      const stopped = new Promise<void>((resolve) => {
        this.#onStopped = resolve
      })
      // A thread still opening its model listens to nobody: it is ended without being asked.
      if (wasServing) {
        this.#post({ type: 'shutdown' })
        await within(STOP_TIMEOUT_MS, stopped)
      }
      await this.#link?.terminate()
      this.#link = null
    }
    // A thread that did not answer in time still owes these their end.
    this.#requests.failAll(new LorikeetError('DRAINING'))
    this.#settleReady.reject(new LorikeetError('DRAINING'))
    this.#setState('dead', null)
  }

  // ---- calls

  async #load(source: AdapterSource, replace: boolean): Promise<AdapterInfo> {
    this.#numLoadingAdapters++
    try {
      const info = await this.#calls.open((callId) => this.#post({ type: 'load-adapter', callId, adapter: source, replace }))
      invariant(info !== null, 'a loaded adapter is described')
      this.#sources.set(source.name, source)
      return info
    } finally {
      this.#numLoadingAdapters--
    }
  }

  #mirror(adapters: readonly AdapterInfo[]): void {
    this.#listedAdapters = adapters.filter(({ isMixture }) => !isMixture)
    this.#adaptersByName = new Map(adapters.map((info) => [info.name, info]))
    for (const info of adapters) this.#maxAdapterId = Math.max(this.#maxAdapterId, info.id)
  }

  #refusal(): LorikeetError | null {
    switch (this.#state) {
      case 'ready':
        return null
      case 'starting':
        return new LorikeetError('ENGINE_STARTING')
      case 'draining':
        return new LorikeetError('DRAINING')
      case 'dead':
        return new LorikeetError('ENGINE_DEAD', { reason: this.#deathReason })
    }
  }

  #post(command: EngineCommand): void {
    invariant(this.#link !== null, `no engine to send ${command.type} to`)
    this.#link.post(command)
  }

  #setState(state: EngineState, error: LorikeetError | null): void {
    if (this.#state === state) return
    this.#state = state
    for (const listener of this.#stateListeners) listener(state, error)
  }
}

async function within(timeoutMs: number, work: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | null = null
  const timeout = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, timeoutMs)
  })
  await Promise.race([work, timeout])
  if (timer !== null) clearTimeout(timer)
}
