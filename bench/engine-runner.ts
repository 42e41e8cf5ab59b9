// Drives the engine through EngineClient, on its own thread as in the server, with no HTTP and no text in between.
// The thread runs built code: `npm run build` first.

import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { loadConfig } from '../src/config/load-config.ts'
import { type AdapterId, requestId } from '../src/core/ids.ts'
import { EngineClient } from '../src/engine/engine-client.ts'
import type { ModelInfo, RequestOutput, StepTiming } from '../src/engine/messages.ts'
import { LorikeetError } from '../src/errors.ts'
import type { GenerationRun } from './generation-run.ts'
import { greedy } from './greedy-sampling.ts'

const THREAD_FILE = resolve('dist/engine-thread.js')
const SHUTDOWN_GRACE_MS = 1000

/** One step as the engine reported it, and when the report arrived here. */
export interface TimedStep {
  readonly arrivedAtMs: number
  readonly timing: StepTiming
}

export interface EngineRun extends GenerationRun {
  readonly steps: readonly TimedStep[]
  /** Part of `decodeMs` inside native code. */
  readonly nativeMs: number
}

export class EngineRunner {
  readonly #client: EngineClient
  #numRequests = 0
  #steps: TimedStep[] = []

  private constructor(client: EngineClient) {
    this.#client = client
    client.onStep((event) => this.#steps.push({ arrivedAtMs: performance.now(), timing: event.timing }))
  }

  /** `args` are flags of `lorikeet serve`. */
  static async start(args: readonly string[]): Promise<EngineRunner> {
    if (!existsSync(THREAD_FILE)) {
      throw new LorikeetError('CONFIG_INVALID', { option: THREAD_FILE, reason: 'run `npm run build` first' })
    }
    const { config } = loadConfig([...args, '--log-level', 'error'], {})
    const client = EngineClient.start({ config, threadUrl: pathToFileURL(THREAD_FILE) })
    await client.ready
    return new EngineRunner(client)
  }

  get model(): ModelInfo {
    return this.#client.model
  }

  async loadAdapter(name: string, path: string): Promise<AdapterId> {
    const { id } = await this.#client.loadAdapter({ name, path: resolve(path) }, false)
    return id
  }

  unloadAdapter(name: string): Promise<unknown> {
    return this.#client.unloadAdapter(name)
  }

  /** All prompts at once, greedy; each gets exactly `numOutputTokens` tokens. `adapters[i]` is prompt i's, null the base. */
  async generate(
    prompts: readonly Int32Array[],
    numOutputTokens: number,
    adapters: readonly (AdapterId | null)[],
  ): Promise<EngineRun> {
    this.#steps = []
    const startMs = performance.now()
    const rows = await Promise.all(
      prompts.map((prompt, index) => this.#submit(prompt, numOutputTokens, adapters[index] ?? null)),
    )
    const totalMs = performance.now() - startMs
    return { tokens: rows, totalMs, steps: this.#steps, ...fullDecodeSpan(this.#steps, prompts.length) }
  }

  shutdown(): Promise<void> {
    return this.#client.shutdown(SHUTDOWN_GRACE_MS)
  }

  #submit(promptTokenIds: Int32Array, maxTokens: number, adapterId: AdapterId | null): Promise<Int32Array> {
    const id = requestId(`bench-${this.#numRequests++}`)
    const tokens: number[] = []
    return new Promise((resolvePromise, reject) => {
      const sink = (output: RequestOutput): void => {
        tokens.push(...output.tokenIds)
        if (output.finish === null) return
        if (output.finish.error !== null) reject(LorikeetError.fromWire(output.finish.error))
        else resolvePromise(Int32Array.from(tokens))
      }
      const sampling = greedy(maxTokens)
      const arrivedAtMs = performance.timeOrigin + performance.now()
      this.#client.submit({ requestId: id, promptTokenIds, adapterId, sampling, priority: 0, cacheSalt: '', arrivedAtMs }, sink)
    })
  }
}

/**
 * The stretch in which every request decodes and none computes its prompt. Measured between arrivals of step reports, so that
 * everything between two steps counts.
 *
 *   prompt chunks | first full step ... last full step | requests finish
 *                                  ^ from            ^ to
 */
function fullDecodeSpan(
  steps: readonly TimedStep[],
  numSeqs: number,
): Pick<EngineRun, 'decodeMs' | 'numDecodeTokens' | 'nativeMs'> {
  const full = steps.filter(({ timing }) => timing.numSeqs === numSeqs && timing.numTokens === numSeqs)
  const first = full[0]
  const last = full.at(-1)
  if (first === undefined || last === undefined || full.length < 2) {
    return { decodeMs: Number.NaN, numDecodeTokens: 0, nativeMs: Number.NaN }
  }
  return {
    decodeMs: last.arrivedAtMs - first.arrivedAtMs,
    numDecodeTokens: (full.length - 1) * numSeqs,
    nativeMs: full.slice(1).reduce((sum, { timing }) => sum + timing.nativeMs, 0),
  }
}

/** Share of the decode span outside native code: plan, feed, KV write, sampling, bookkeeping, messages. */
export function shareOutsideNative(run: EngineRun): number {
  return 1 - run.nativeMs / run.decodeMs
}
