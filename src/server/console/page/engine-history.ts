// The last minute of the engine, and what follows from two looks at it.

import type { EngineSample } from './engine-sample.ts'

/** A minute at one sample a second: longer than most answers, short enough to see each second. */
export const HISTORY_SAMPLES = 61

type Counter = {
  [Key in keyof EngineSample]: EngineSample[Key] extends number | null ? Key : never
}[keyof EngineSample]

/** Nobody looked for longer than this: what was before is no longer the last minute. */
const MAX_GAP_MS = 10_000

export interface AdapterActivity {
  /** As in the metrics: an adapter's name, or one of the labels for base model and others. */
  readonly name: string
  /** In requests that ended within the minute. */
  readonly numTokens: number
  readonly isRunning: boolean
  readonly isWaiting: boolean
}

export class EngineHistory {
  readonly #samples: EngineSample[] = []

  push(sample: EngineSample): void {
    const { latest } = this
    if (latest !== null && sample.atMs - latest.atMs > MAX_GAP_MS) this.#samples.length = 0
    this.#samples.push(sample)
    if (this.#samples.length > HISTORY_SAMPLES) this.#samples.shift()
  }

  get latest(): EngineSample | null {
    return this.#samples.at(-1) ?? null
  }

  /** One value a sample, oldest first; null where it is not known. */
  values(key: Counter): readonly (number | null)[] {
    return this.#samples.map((sample) => sample[key])
  }

  /** Growth a second between neighbouring samples, oldest first; one less than there are samples. */
  rates(key: Counter): readonly (number | null)[] {
    return this.#samples.slice(1).map((sample, index) => rate(this.#samples[index] as EngineSample, sample, key))
  }

  /** Quotient of two counters' growth over the minute; null without growth. */
  ratio(dividend: Counter, divisor: Counter): number | null {
    const [first, last] = [this.#samples[0], this.latest]
    if (first === undefined || last === null) return null
    const by = growth(first, last, divisor)
    return by === null || by === 0 ? null : (growth(first, last, dividend) ?? 0) / by
  }

  /** Adapters that did something within the minute: those at work first, then by tokens. */
  activity(): readonly AdapterActivity[] {
    const [first, last] = [this.#samples[0], this.latest]
    if (first === undefined || last === null) return []
    const names = new Set([...last.runningAdapters, ...last.waitingAdapters, ...last.adapterTokens.keys()])
    return [...names]
      .map((name) => ({
        name,
        numTokens: Math.max(0, (last.adapterTokens.get(name) ?? 0) - (first.adapterTokens.get(name) ?? 0)),
        isRunning: last.runningAdapters.has(name),
        isWaiting: last.waitingAdapters.has(name),
      }))
      .filter(({ numTokens, isRunning, isWaiting }) => numTokens > 0 || isRunning || isWaiting)
      .sort((a, b) => Number(b.isRunning) - Number(a.isRunning) || b.numTokens - a.numTokens || a.name.localeCompare(b.name))
  }
}

function rate(before: EngineSample, after: EngineSample, key: Counter): number | null {
  const grown = growth(before, after, key)
  return grown === null || after.atMs <= before.atMs ? null : (grown * 1000) / (after.atMs - before.atMs)
}

/** A counter that fell belongs to a server that was started anew: it grew from zero. */
function growth(before: EngineSample, after: EngineSample, key: Counter): number | null {
  const [from, to] = [before[key], after[key]]
  if (from === null || to === null) return null
  return to < from ? to : to - from
}
