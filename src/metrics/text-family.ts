// Families whose series are many, or are observed with every token. prom-client takes about a microsecond for each observation
// and each line (bench/metrics-render.ts); here an observation is an addition, and what did not change is kept as text.

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
  readonly #onChange: () => void
  #value = 0
  #text: string | null = null

  /** `onChange` is called when text that was given out is no longer true. */
  constructor(name: string, labels: Labels, onChange: () => void) {
    this.#prefix = `${name}${braced(pairs(labels))} `
    this.#onChange = onChange
  }

  add(amount: number): void {
    this.set(this.#value + amount)
  }

  set(value: number): void {
    if (value === this.#value) return
    this.#value = value
    if (this.#text === null) return
    this.#text = null
    this.#onChange()
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
  readonly #onChange: () => void
  #sum = 0
  #text: string | null = null

  /** `bounds` ascend. `onChange` is called when text that was given out is no longer true. */
  constructor(name: string, labels: Labels, bounds: readonly number[], onChange: () => void) {
    const shared = pairs(labels)
    this.#onChange = onChange
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
    if (this.#text === null) return
    this.#text = null
    this.#onChange()
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
  readonly #create: (labels: Labels, onChange: () => void) => S
  readonly #series = new Set<S>()
  readonly #head: string
  #text: string | null = null

  private constructor(info: FamilyInfo, create: (labels: Labels, onChange: () => void) => S) {
    this.info = info
    this.#create = create
    this.#head = `# HELP ${info.name} ${info.help}\n# TYPE ${info.name} ${info.type}\n`
  }

  static tally(info: FamilyInfo): TextFamily<Tally> {
    return new TextFamily(info, (labels, onChange) => new Tally(info.name, labels, onChange))
  }

  static distribution(info: FamilyInfo, bounds: readonly number[]): TextFamily<Distribution> {
    return new TextFamily(info, (labels, onChange) => new Distribution(info.name, labels, bounds, onChange))
  }

  /** A new series, zero. The labels must not be in use. */
  series(labels: Labels): S {
    const series = this.#create(labels, () => {
      this.#text = null
    })
    this.#series.add(series)
    this.#text = null
    return series
  }

  drop(series: S): void {
    this.#series.delete(series)
    this.#text = null
  }

  /** Empty without series, as a head alone says nothing. */
  text(): string {
    this.#text ??= this.#render()
    return this.#text
  }

  #render(): string {
    if (this.#series.size === 0) return ''
    // Joined, not added up: the engine of JavaScript keeps a sum as a tree, and would walk it again for every page.
    return [this.#head, ...Array.from(this.#series, (series) => series.text())].join('')
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
