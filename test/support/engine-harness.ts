// An engine on the null backend in this process, turned by hand: commands go in, one step at a time, outputs come out.

import assert from 'node:assert/strict'
import { greedy } from '../../bench/greedy-sampling.ts'
import type { Backend } from '../../src/backend/backend.ts'
import { createNullBackend } from '../../src/backend/null/null-backend.ts'
import { type AdapterId, requestId } from '../../src/core/ids.ts'
import type { SamplingParams } from '../../src/core/sampling-params.ts'
import { Engine } from '../../src/engine/engine.ts'
import type {
  EngineCommand,
  EngineEvent,
  EngineStats,
  NewRequest,
  RequestFinish,
  TokenLogprobs,
} from '../../src/engine/messages.ts'
import { FakeAdapters } from './fake-adapters.ts'

export const GREEDY: SamplingParams = greedy(16)

export interface HarnessOptions {
  readonly numBlocks?: number
  readonly blockSize?: number
  readonly vocabSize?: number
  readonly adapterBytes?: number
  readonly maxNumSeqs?: number
  readonly maxNumBatchedTokens?: number
  readonly maxModelLen?: number
  readonly enablePrefixCaching?: boolean
  readonly wrapBackend?: (backend: Backend) => Backend
}

export interface AddOptions {
  readonly id: string
  readonly prompt: readonly number[]
  readonly adapterId?: AdapterId | null
  readonly sampling?: Partial<SamplingParams>
  readonly priority?: number
  readonly cacheSalt?: string
}

/** Everything the engine said about one request. */
export interface Heard {
  readonly tokenIds: number[]
  readonly logprobs: TokenLogprobs[]
  promptLogprobs: readonly TokenLogprobs[] | null
  finish: RequestFinish | null
}

export function newRequest(options: AddOptions): NewRequest {
  return {
    requestId: requestId(options.id),
    promptTokenIds: Int32Array.from(options.prompt),
    adapterId: options.adapterId ?? null,
    sampling: { ...GREEDY, ...options.sampling },
    priority: options.priority ?? 0,
    cacheSalt: options.cacheSalt ?? '',
    arrivedAtMs: 0,
  }
}

export class EngineHarness {
  readonly engine: Engine
  readonly adapters: FakeAdapters
  readonly heard = new Map<string, Heard>()
  readonly events: EngineEvent[] = []
  stats: EngineStats | null = null
  nowMs = 0
  #commands: EngineCommand[] = []
  #numSeeds = 0

  constructor(options: HarnessOptions = {}) {
    const plain = createNullBackend({
      vocabSize: options.vocabSize ?? 997,
      blockSize: options.blockSize ?? 4,
      numBlocks: options.numBlocks ?? 64,
      adapterBytes: options.adapterBytes ?? 1000,
      stepDelayMs: 0,
    })
    const backend = options.wrapBackend?.(plain) ?? plain
    this.adapters = new FakeAdapters(backend)
    this.engine = new Engine({
      backend,
      adapters: this.adapters,
      maxNumSeqs: options.maxNumSeqs ?? 16,
      maxNumBatchedTokens: options.maxNumBatchedTokens ?? 64,
      maxModelLen: options.maxModelLen ?? 256,
      enablePrefixCaching: options.enablePrefixCaching ?? true,
      receive: () => this.#commands.shift() ?? null,
      send: (event) => this.#hear(event),
      clock: () => this.nowMs++,
      drawSeed: () => ++this.#numSeeds,
    })
  }

  add(options: AddOptions): void {
    this.heard.set(options.id, { tokenIds: [], logprobs: [], promptLogprobs: null, finish: null })
    this.#commands.push({ type: 'add-request', request: newRequest(options) })
  }

  send(command: EngineCommand): void {
    this.#commands.push(command)
  }

  abort(...ids: string[]): void {
    this.#commands.push({ type: 'abort-requests', requestIds: ids.map(requestId) })
  }

  async step(): Promise<boolean> {
    const hasRun = await this.engine.step()
    this.engine.checkIntegrity()
    return hasRun
  }

  /** Steps until all requests have finished. */
  async drain(maxSteps = 10_000): Promise<void> {
    for (let i = 0; i < maxSteps; i++) {
      await this.step()
      if (this.engine.isIdle && this.#commands.length === 0) {
        await this.step()
        return
      }
    }
    assert.fail(`not idle after ${maxSteps} steps`)
  }

  /** Adds one request, runs everything to the end, and gives its output tokens. */
  async run(options: AddOptions): Promise<Heard> {
    this.add(options)
    await this.drain()
    return this.of(options.id)
  }

  of(id: string): Heard {
    const heard = this.heard.get(id)
    assert.ok(heard, `no request ${id}`)
    return heard
  }

  tokensOf(id: string): number[] {
    return this.of(id).tokenIds
  }

  #hear(event: EngineEvent): void {
    this.events.push(event)
    if (event.type !== 'step') return
    this.stats = event.stats
    for (const output of event.outputs) {
      const heard = this.heard.get(output.requestId)
      if (heard === undefined) continue
      assert.equal(heard.finish, null, `output after the finish of ${output.requestId}`)
      heard.tokenIds.push(...output.tokenIds)
      if (output.logprobs !== null) heard.logprobs.push(...output.logprobs)
      heard.promptLogprobs ??= output.promptLogprobs
      heard.finish = output.finish
    }
  }
}

/** Seeded numbers for random operation sequences (mulberry32). */
export function randomSource(seed: number): { below(n: number): number; unit(): number } {
  let state = seed
  const unit = (): number => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
  return { unit, below: (n) => Math.floor(unit() * n) }
}

export function prompt(length: number, seed = 1, vocabSize = 997): number[] {
  const random = randomSource(seed)
  return Array.from({ length }, () => random.below(vocabSize))
}
