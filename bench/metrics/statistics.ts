// Summaries of raw samples: nothing is averaged twice, percentiles are linear between order statistics as numpy's.

export interface Summary {
  readonly count: number
  readonly mean: number
  readonly median: number
  /** Population standard deviation, as numpy's default and vLLM's. */
  readonly std: number
  /** By percent point. */
  readonly percentiles: Readonly<Record<string, number>>
}

/** A growing list of doubles without boxing: a long run has a sample per generated token. */
export class Samples {
  #values = new Float64Array(1024)
  #length = 0

  get length(): number {
    return this.#length
  }

  push(value: number): void {
    if (this.#length === this.#values.length) {
      const grown = new Float64Array(this.#values.length * 2)
      grown.set(this.#values)
      this.#values = grown
    }
    this.#values[this.#length] = value
    this.#length += 1
  }

  pushAll(values: Iterable<number>): void {
    for (const value of values) this.push(value)
  }

  values(): Float64Array {
    return this.#values.subarray(0, this.#length)
  }
}

/** All zeros for no samples, as vLLM prints. */
export function summarize(samples: Float64Array, percents: readonly number[]): Summary {
  if (samples.length === 0) {
    return { count: 0, mean: 0, median: 0, std: 0, percentiles: Object.fromEntries(percents.map((percent) => [percent, 0])) }
  }
  const sorted = samples.slice().sort()
  const mean = sorted.reduce((sum, value) => sum + value, 0) / sorted.length
  const variance = sorted.reduce((sum, value) => sum + (value - mean) ** 2, 0) / sorted.length
  return {
    count: sorted.length,
    mean,
    median: percentileOfSorted(sorted, 50),
    std: Math.sqrt(variance),
    percentiles: Object.fromEntries(percents.map((percent) => [percent, percentileOfSorted(sorted, percent)])),
  }
}

/** Percentile of ascending samples, at least one, linear between neighbours. */
export function percentileOfSorted(sorted: ArrayLike<number>, percent: number): number {
  const place = ((sorted.length - 1) * percent) / 100
  const below = Math.floor(place)
  const low = sorted[below] as number
  const high = sorted[Math.min(below + 1, sorted.length - 1)] as number
  return low + (high - low) * (place - below)
}
