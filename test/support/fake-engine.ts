// A scripted engine for tests of the server: says the tokens it is told to, one an event-loop turn, and remembers what it was asked.

import { type AdapterId, adapterId, type RequestId } from '../../src/core/ids.ts'
import type { EngineState, StepEvent } from '../../src/engine/engine-client.ts'
import type {
  AdapterActivity,
  AdapterInfo,
  AdapterSource,
  EngineStats,
  FinishReason,
  ModelInfo,
  NewRequest,
  RequestOutput,
  TokenLogprobs,
} from '../../src/engine/messages.ts'
import { LorikeetError } from '../../src/errors.ts'
import type { EnginePort } from '../../src/server/generation/engine-port.ts'

export interface FakeEngineOptions {
  readonly vocabSize?: number
  readonly maxModelLen?: number
  readonly maxNumSeqs?: number
  /** Of every adapter; default 0. */
  readonly numVirtualTokens?: number
  /** Output tokens of a request; cut at its limit, its end-of-sequence ids and its stop ids. Default: token 300 for ever. */
  readonly script?: (request: NewRequest) => readonly number[]
  /** Ends every request at once with this error. */
  readonly failure?: LorikeetError
  /** Called before an adapter counts as loaded. */
  readonly onLoad?: (source: AdapterSource) => Promise<void>
}

interface Run {
  readonly request: NewRequest
  readonly sink: (output: RequestOutput) => void
  readonly tokens: readonly number[]
  numSent: number
}

const FOREVER = Array.from({ length: 4096 }, () => 300)

export class FakeEngine implements EnginePort {
  state: EngineState = 'ready'
  readonly model: ModelInfo
  readonly submitted: NewRequest[] = []
  readonly aborted: RequestId[] = []
  readonly loads: AdapterSource[] = []
  readonly numLoadingAdapters = 0
  readonly #options: FakeEngineOptions
  readonly #runs = new Map<RequestId, Run>()
  readonly #adapters = new Map<string, AdapterInfo>()
  #isPaused = false
  #isTicking = false
  #numAdapters = 0

  constructor(options: FakeEngineOptions = {}) {
    this.#options = options
    this.model = {
      modelType: 'llama',
      backend: 'fake',
      dtype: 'float32',
      vocabSize: options.vocabSize ?? 512,
      maxModelLen: options.maxModelLen ?? 512,
      blockSize: 16,
      numBlocks: 64,
      maxNumSeqs: options.maxNumSeqs ?? 64,
      maxNumBatchedTokens: 512,
    }
  }

  get numRunning(): number {
    return this.#runs.size
  }

  /** No tokens until `resume`; aborts still work. */
  pause(): void {
    this.#isPaused = true
  }

  resume(): void {
    this.#isPaused = false
    this.#schedule()
  }

  submit(request: NewRequest, sink: (output: RequestOutput) => void): void {
    this.submitted.push(request)
    this.#runs.set(request.requestId, { request, sink, tokens: this.#options.script?.(request) ?? FOREVER, numSent: 0 })
    this.#schedule()
  }

  abort(requestIds: readonly RequestId[]): void {
    this.aborted.push(...requestIds)
    for (const id of requestIds) {
      const run = this.#runs.get(id)
      if (run !== undefined) setImmediate(() => this.#send(run, [], 'abort'))
    }
  }

  async loadAdapter(source: AdapterSource): Promise<AdapterInfo> {
    this.loads.push(source)
    await this.#options.onLoad?.(source)
    const info: AdapterInfo = {
      id: adapterId(++this.#numAdapters),
      name: source.name,
      path: source.path,
      kind: 'LORA',
      digest: 'd',
      maxRank: 4,
      numVirtualTokens: this.#options.numVirtualTokens ?? 0,
      numBytes: 100,
      hostBytes: 100,
      deviceBytes: 0,
      isLoading: false,
      isMixture: source.members !== undefined,
      loadedAtMs: 1_700_000_000_000,
      state: 'loaded',
    }
    this.#adapters.set(source.name, info)
    return info
  }

  async unloadAdapter(name: string): Promise<void> {
    this.#adapters.delete(name)
  }

  findAdapter(name: string): AdapterInfo | null {
    return this.#adapters.get(name) ?? null
  }

  adapters(): readonly AdapterInfo[] {
    return [...this.#adapters.values()].filter(({ isMixture }) => !isMixture)
  }

  adapterName(id: AdapterId | null): string | null {
    return [...this.#adapters.values()].find((adapter) => adapter.id === id)?.name ?? null
  }

  stats(): EngineStats {
    return {
      numRunning: this.#runs.size,
      numWaiting: 0,
      numWaitingForAdapter: 0,
      numBlocks: 64,
      numUsedBlocks: this.#runs.size,
      numPreemptions: 0,
      numPrefixQueryTokens: 0,
      numPrefixHitTokens: 0,
      numPromptTokens: 7,
      numCachedPromptTokens: 3,
      numGenerationTokens: 11,
      adapterLoads: 0,
      adapterEvictions: 0,
      adapterBytes: 0,
      runningAdapters: ['b', 'a'],
      waitingAdapters: [],
      numWaitingByAdapter: [],
    }
  }

  onAdapterActivity(_listener: (activity: readonly AdapterActivity[]) => void): () => void {
    return () => {}
  }

  onStep(_listener: (event: StepEvent) => void): () => void {
    return () => {}
  }

  #schedule(): void {
    if (this.#isTicking || this.#isPaused || this.#runs.size === 0) return
    this.#isTicking = true
    setImmediate(() => {
      this.#isTicking = false
      if (!this.#isPaused) for (const run of [...this.#runs.values()]) this.#step(run)
      this.#schedule()
    })
  }

  #step(run: Run): void {
    if (this.#options.failure !== undefined) {
      this.#send(run, [], 'error')
      return
    }
    const { sampling } = run.request
    const token = sampling.maxTokens === 0 ? undefined : run.tokens[run.numSent]
    if (token === undefined) {
      this.#send(run, [], 'length')
      return
    }
    const isEnd = (sampling.eosTokenIds.includes(token) && !sampling.ignoreEos) || sampling.stopTokenIds.includes(token)
    const isLast = run.numSent + 1 >= sampling.maxTokens
    this.#send(run, [token], isEnd ? 'stop' : isLast ? 'length' : null)
  }

  #send(run: Run, tokenIds: readonly number[], reason: FinishReason | null): void {
    const { request, sink } = run
    if (!this.#runs.has(request.requestId)) return
    const isFirst = run.numSent === 0
    run.numSent += tokenIds.length
    if (reason !== null) this.#runs.delete(request.requestId)
    const { logprobs, promptLogprobs, eosTokenIds } = request.sampling
    const last = tokenIds.at(-1) ?? null
    sink({
      requestId: request.requestId,
      tokenIds,
      logprobs: logprobs === null ? null : tokenIds.map((tokenId) => fakeLogprobs(tokenId, logprobs)),
      promptLogprobs:
        promptLogprobs === null || !isFirst
          ? null
          : Array.from(request.promptTokenIds.subarray(1), (tokenId) => fakeLogprobs(tokenId, promptLogprobs)),
      finish:
        reason === null
          ? null
          : {
              reason,
              stopTokenId: reason === 'stop' && last !== null && !eosTokenIds.includes(last) ? last : null,
              error: reason === 'error' ? (this.#options.failure ?? new LorikeetError('INTERNAL')).toWire() : null,
              metrics: {
                arrivedAtMs: request.arrivedAtMs,
                firstScheduledAtMs: request.arrivedAtMs,
                firstTokenAtMs: run.numSent > 0 ? request.arrivedAtMs + 5 : null,
                lastTokenAtMs: run.numSent > 0 ? request.arrivedAtMs + 9 : null,
                finishedAtMs: request.arrivedAtMs + 10,
                adapterWaitMs: 0,
                numPromptTokens: request.promptTokenIds.length,
                numOutputTokens: run.numSent,
                numCachedTokens: 3,
                numPreemptions: 0,
              },
            },
    })
  }
}

/** Token t has logprob -1 and rank 3; the most likely ones are tokens 265, 266, ... with logprobs -0.5, -0.6, ... */
function fakeLogprobs(tokenId: number, numTop: number): TokenLogprobs {
  const count = numTop < 0 ? 512 : numTop
  return {
    tokenId,
    logprob: tokenId === 0 ? Number.NEGATIVE_INFINITY : -1,
    rank: 3,
    topTokenIds: Int32Array.from({ length: count }, (_, i) => 265 + i),
    topLogprobs: Float32Array.from({ length: count }, (_, i) => -0.5 - i * 0.125),
  }
}
