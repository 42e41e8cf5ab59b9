// Families whose series are many, or are observed with every token. prom-client takes about a microsecond for each observation
// and each line (bench/metrics-render.ts); here an observation is an addition, and lines that did not change are kept as text.

export type FamilyType = 'counter' | 'gauge' | 'histogram' | 'summary'
export type Labels = Readonly<Record<string, string>>

/** What the documentation says of a family. */
export interface FamilyInfo {
  readonly name: string
  readonly type: FamilyType
  readonly help: string
  readonly labelNames: readonly string[]
}

/** Lines of one set of labels. */
export interface Series {
  /** Complete lines, each with its end. */
  text(): string
}

/** A counter or a gauge. */
export class Tally implements Series {
  readonly #prefix: string
  #value = 0
  #text: string | null = null

  constructor(name: string, labels: Labels) {
    this.#prefix = `${name}${braced(pairs(labels))} `
  }

  add(amount: number): void {
    this.set(this.#value + amount)
  }

  set(value: number): void {
    if (value === this.#value) return
    this.#value = value
    this.#text = null
  }

  text(): string {
    this.#text ??= `${this.#prefix}${this.#value}\n`
    return this.#text
  }
}

/** As Python's client writes them: vLLM's boards match bounds by their text, `le="1.0"`. */
const boundLabel = (bound: number | string): string => (Number.isInteger(bound) ? `${bound}.0` : String(bound))

/** A histogram. */
export class Distribution implements Series {
  readonly #bounds: readonly number[]
  /** Everything of each line but its number: buckets, +Inf, sum, count. */
  readonly #prefixes: readonly string[]
  readonly #counts: Float64Array // [numBounds + 1], not cumulative
  #sum = 0
  #text: string | null = null

  /** `bounds` ascend. */
  constructor(name: string, labels: Labels, bounds: readonly number[]) {
    const shared = pairs(labels)
    this.#bounds = bounds
    this.#counts = new Float64Array(bounds.length + 1)
    this.#prefixes = [
      ...[...bounds, '+Inf'].map((bound) => `${name}_bucket${braced([`le="${boundLabel(bound)}"`, ...shared])} `),
      `${name}_sum${braced(shared)} `,
      `${name}_count${braced(shared)} `,
    ]
  }

  /** Counts `value`, as often as it was seen. */
  observe(value: number, times = 1): void {
    const bounds = this.#bounds
    let low = 0
    let high = bounds.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((bounds[middle] as number) < value) low = middle + 1
      else high = middle
    }
    this.#counts[low] = (this.#counts[low] as number) + times
    this.#sum += value * times
    this.#text = null
  }

  text(): string {
    this.#text ??= this.#render()
    return this.#text
  }

  #render(): string {
    let text = ''
    let total = 0
    for (let i = 0; i < this.#counts.length; i++) {
      total += this.#counts[i] as number
      text += `${this.#prefixes[i]}${total}\n`
    }
    return `${text}${this.#prefixes.at(-2)}${this.#sum}\n${this.#prefixes.at(-1)}${total}\n`
  }
}

/** A name with its series. */
export class TextFamily<S extends Series> {
  readonly info: FamilyInfo
  readonly #create: (labels: Labels) => S
  readonly #series = new Set<S>()
  readonly #head: string

  private constructor(info: FamilyInfo, create: (labels: Labels) => S) {
    this.info = info
    this.#create = create
    this.#head = `# HELP ${info.name} ${info.help}\n# TYPE ${info.name} ${info.type}\n`
  }

  static tally(info: FamilyInfo): TextFamily<Tally> {
    return new TextFamily(info, (labels) => new Tally(info.name, labels))
  }

  static distribution(info: FamilyInfo, bounds: readonly number[]): TextFamily<Distribution> {
    return new TextFamily(info, (labels) => new Distribution(info.name, labels, bounds))
  }

  /** A new series, zero. The labels must not be in use. */
  series(labels: Labels): S {
    const series = this.#create(labels)
    this.#series.add(series)
    return series
  }

  drop(series: S): void {
    this.#series.delete(series)
  }

  /** Empty without series, as a head alone says nothing. */
  text(): string {
    if (this.#series.size === 0) return ''
    let text = this.#head
    for (const series of this.#series) text += series.text()
    return text
  }
}

function pairs(labels: Labels): string[] {
  return Object.entries(labels).map(([name, value]) => `${name}="${escapeLabel(value)}"`)
}

function braced(parts: readonly string[]): string {
  return parts.length === 0 ? '' : `{${parts.join(',')}}`
}

function escapeLabel(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll('\n', '\\n').replaceAll('"', '\\"')
}
