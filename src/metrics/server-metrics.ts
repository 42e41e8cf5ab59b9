// Everything behind /metrics: who tells what to which families, and the text.

import { AdapterFamilies } from './adapter-families.ts'
import { registerEngineFamilies } from './engine-families.ts'
import { HttpFamilies } from './http-families.ts'
import { type Build, registerInfoFamilies, type ServedModel } from './info-families.ts'
import { MetricsRegistry } from './metrics-registry.ts'
import { PerAdapterFamilies } from './per-adapter-families.ts'
import type {
  AdapterActivity,
  AdapterSource,
  AdapterTier,
  EngineSnapshot,
  HttpRecord,
  PromptRecord,
  RejectReason,
  StepRecord,
} from './records.ts'
import { RequestFamilies } from './request-families.ts'
import { StepFamilies } from './step-families.ts'
import type { FamilyInfo, Tally } from './text-family.ts'

export interface ServerMetricsOptions {
  readonly model: ServedModel
  readonly build: Build
  /** Adapters that a step may hold. */
  readonly maxAdapters: number
  /** Budgets for adapters, bytes. */
  readonly adapterLimits: Readonly<Record<AdapterTier, number>>
  /** Adapters with series of their own. */
  readonly maxTrackedAdapters: number
  readonly hasLegacyNames: boolean
  readonly loraInfo: 'running' | 'resident'
  readonly snapshot: () => EngineSnapshot
  readonly adapters: AdapterSource
}

const REJECT_REASONS: readonly RejectReason[] = ['queue_full', 'draining', 'unavailable', 'auth']

/** Pickers scrape every 50 ms, and several may; text this old is as good as fresh. */
const TEXT_TTL_MS = 10

export class ServerMetrics {
  readonly contentType = MetricsRegistry.contentType
  readonly #registry = new MetricsRegistry()
  readonly #requests: RequestFamilies
  readonly #steps: StepFamilies
  readonly #adapters: AdapterFamilies
  readonly #perAdapter: PerAdapterFamilies
  readonly #http: HttpFamilies
  readonly #rejected: ReadonlyMap<RejectReason, Tally>
  #text: Promise<string> | null = null
  #textAtMs = 0

  constructor(options: ServerMetricsOptions) {
    const { model, snapshot, adapters, hasLegacyNames } = options
    const registry = this.#registry
    const labels = { model_name: model.modelName, engine: '0' }
    registerEngineFamilies(registry, { labels, snapshot, hasLegacyNames })
    registerInfoFamilies(registry, labels, model, options.build)
    this.#requests = new RequestFamilies(registry, labels, model.maxModelLen)
    this.#steps = new StepFamilies(registry, { labels, hasLegacyNames })
    this.#adapters = new AdapterFamilies(registry, { ...options, limits: options.adapterLimits })
    this.#perAdapter = new PerAdapterFamilies(registry, {
      snapshot,
      adapters,
      maxTracked: options.maxTrackedAdapters,
      now: () => performance.now(),
    })
    this.#http = new HttpFamilies(registry)
    const rejected = registry.tally(
      'lorikeet_rejected_total',
      'counter',
      'Calls refused before they ran, by reason: queue_full, draining, unavailable (starting or dead), auth.',
      ['reason'],
    )
    this.#rejected = new Map(REJECT_REASONS.map((reason) => [reason, rejected.series({ reason })]))
  }

  /** Prometheus text format 0.0.4. */
  text(): Promise<string> {
    const nowMs = performance.now()
    if (this.#text === null || nowMs - this.#textAtMs > TEXT_TTL_MS) {
      this.#perAdapter.refresh()
      this.#text = this.#registry.text()
      this.#textAtMs = nowMs
    }
    return this.#text
  }

  /** Every family but those of the process. */
  describe(): FamilyInfo[] {
    return this.#registry.describe()
  }

  observePrompt(record: PromptRecord): void {
    this.#requests.observe(record)
    this.#perAdapter.observePrompt(record)
  }

  observeStep(record: StepRecord): void {
    this.#steps.observe(record)
  }

  observeAdapterActivity(activity: AdapterActivity): void {
    this.#adapters.observe(activity)
    this.#perAdapter.observeActivity(activity)
  }

  observeHttp(record: HttpRecord): void {
    this.#http.observe(record)
  }

  countRejected(reason: RejectReason): void {
    this.#rejected.get(reason)?.add(1)
  }
}
