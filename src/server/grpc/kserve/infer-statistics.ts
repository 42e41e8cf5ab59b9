// Counts and times of requests by model, as ModelStatistics reports them.

import type { Generation } from '../../generation/generation.ts'
import type { GenerationObserver } from '../../generation/generations.ts'
import type { ModelStatistics, StatisticDuration } from '../generated/inference/grpc_service.ts'
import { MODEL_VERSION } from './infer-request.ts'

interface Duration {
  count: number
  ms: number
}

interface Entry {
  lastAtMs: number
  readonly success: Duration
  readonly fail: Duration
  readonly queue: Duration
  readonly compute: Duration
}

export class InferStatistics implements GenerationObserver {
  readonly #baseName: string
  readonly #entries = new Map<string, Entry>()

  constructor(baseName: string) {
    this.#baseName = baseName
  }

  onEnded({ request, choices }: Generation): void {
    const entry = this.#entry(request.adapter?.name ?? this.#baseName)
    entry.lastAtMs = request.arrivedAtMs
    for (const { engineFinish } of choices) {
      if (engineFinish === null) continue
      const { arrivedAtMs, firstScheduledAtMs, finishedAtMs } = engineFinish.metrics
      const hasSucceeded = engineFinish.reason === 'stop' || engineFinish.reason === 'length'
      add(hasSucceeded ? entry.success : entry.fail, finishedAtMs - arrivedAtMs)
      if (firstScheduledAtMs === null) continue
      add(entry.queue, firstScheduledAtMs - arrivedAtMs)
      add(entry.compute, finishedAtMs - firstScheduledAtMs)
    }
  }

  /** Of `names`; what has not run yet is all zero. Models that are gone are forgotten. */
  report(names: readonly string[], isKnown: (name: string) => boolean): ModelStatistics[] {
    for (const name of this.#entries.keys()) if (!isKnown(name)) this.#entries.delete(name)
    return names.map((name) => {
      const entry = this.#entries.get(name) ?? emptyEntry()
      return {
        name,
        version: MODEL_VERSION,
        lastInference: BigInt(Math.floor(entry.lastAtMs)),
        inferenceCount: BigInt(entry.success.count),
        executionCount: BigInt(entry.success.count),
        inferenceStats: {
          success: message(entry.success),
          fail: message(entry.fail),
          queue: message(entry.queue),
          computeInput: undefined,
          computeInfer: message(entry.compute),
          computeOutput: undefined,
        },
      }
    })
  }

  #entry(name: string): Entry {
    let entry = this.#entries.get(name)
    if (entry === undefined) {
      entry = emptyEntry()
      this.#entries.set(name, entry)
    }
    return entry
  }
}

function emptyEntry(): Entry {
  const zero = () => ({ count: 0, ms: 0 })
  return { lastAtMs: 0, success: zero(), fail: zero(), queue: zero(), compute: zero() }
}

function add(duration: Duration, ms: number): void {
  duration.count++
  duration.ms += Math.max(0, ms)
}

function message({ count, ms }: Duration): StatisticDuration {
  return { count: BigInt(count), ns: BigInt(Math.round(ms * 1e6)) }
}
