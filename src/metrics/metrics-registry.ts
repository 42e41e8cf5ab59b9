// All families of the process: prom-client's for what is read at a scrape, our own text for what is observed often.

import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client'
import { type Distribution, type FamilyInfo, type FamilyType, type Series, type Tally, TextFamily } from './text-family.ts'

/** Reading /proc and the heap takes a millisecond; nothing there is looked at more often. */
const PROCESS_TTL_MS = 1000

type LabelValues = Readonly<Record<string, string>>

export class MetricsRegistry {
  static readonly contentType = Registry.PROMETHEUS_CONTENT_TYPE
  readonly #collected = new Registry()
  readonly #process = new Registry()
  readonly #textFamilies: TextFamily<Series>[] = []
  #processText = ''
  #processTextAtMs = Number.NEGATIVE_INFINITY

  constructor() {
    collectDefaultMetrics({ register: this.#process })
  }

  /** A gauge whose series `collect` sets at every scrape; those it does not set are gone. */
  gauge(name: string, help: string, labelNames: readonly string[], collect: (set: SetValue) => void): void {
    new Gauge({
      name,
      help,
      labelNames: [...labelNames],
      registers: [this.#collected],
      collect() {
        this.reset()
        collect((labels, value) => this.set(labels, value))
      },
    })
  }

  /** The same for totals that somebody else keeps: a counter can only be raised, so it starts over at each scrape. */
  counter(name: string, help: string, labelNames: readonly string[], collect: (set: SetValue) => void): void {
    new Counter({
      name,
      help,
      labelNames: [...labelNames],
      registers: [this.#collected],
      collect() {
        this.reset()
        collect((labels, value) => this.inc(labels, value))
      },
    })
  }

  /** A gauge that is 1 and says something by its labels. */
  info(name: string, help: string, labels: LabelValues): void {
    const gauge = new Gauge({ name, help, labelNames: Object.keys(labels), registers: [this.#collected] })
    gauge.set(labels, 1)
  }

  tally(name: string, type: 'counter' | 'gauge', help: string, labelNames: readonly string[]): TextFamily<Tally> {
    return this.#add(TextFamily.tally({ name, type, help, labelNames }))
  }

  distribution(name: string, help: string, labelNames: readonly string[], bounds: readonly number[]): TextFamily<Distribution> {
    return this.#add(TextFamily.distribution({ name, type: 'histogram', help, labelNames }, bounds))
  }

  /** prom-client's, for summaries. */
  get collected(): Registry {
    return this.#collected
  }

  /** Every family but those of the process, in the order of `text`. */
  describe(): FamilyInfo[] {
    const collected = this.#collected.getMetricsAsArray().map((metric) => {
      // Present on every metric of prom-client, and missing in its declarations.
      const { name, help, type, labelNames } = metric as unknown as FamilyInfo & { readonly type: FamilyType }
      return { name, type, help, labelNames: [...labelNames] }
    })
    return [...collected, ...this.#textFamilies.map((family) => family.info)]
  }

  /** Prometheus text format 0.0.4. */
  async text(): Promise<string> {
    const parts = [await this.#collected.metrics()]
    for (const family of this.#textFamilies) parts.push(family.text())
    parts.push(await this.#textOfProcess())
    return parts.join('')
  }

  async #textOfProcess(): Promise<string> {
    const nowMs = performance.now()
    if (nowMs - this.#processTextAtMs > PROCESS_TTL_MS) {
      this.#processTextAtMs = nowMs
      this.#processText = await this.#process.metrics()
    }
    return this.#processText
  }

  #add<S extends Series>(family: TextFamily<S>): TextFamily<S> {
    this.#textFamilies.push(family as unknown as TextFamily<Series>)
    return family
  }
}

export type SetValue = (labels: LabelValues, value: number) => void
