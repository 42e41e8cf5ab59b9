// Families with the label `adapter`. Names are many and come from clients: a limited number of them, by recent use, have series
// of their own, and all others share one set. An adapter's series go away with it.

import { ADAPTER_E2E_BOUNDS_S, ADAPTER_TTFT_BOUNDS_S } from './buckets.ts'
import type { MetricsRegistry } from './metrics-registry.ts'
import type { AdapterActivity, AdapterSource, AdapterTier, EngineSnapshot, PromptRecord, SequenceRecord } from './records.ts'
import type { Distribution, Series, Tally, TextFamily } from './text-family.ts'

/** Labels of what has no series of its own: the base model, and adapters beyond the limit or gone. */
export const BASE_LABEL = '_base'
export const OTHER_LABEL = '_other'

/**
 * An adapter gives its series up to another only after this time without use: scrapers have long seen its last values, and
 * a thousand busy adapters do not push each other out.
 */
const STALE_MS = 600_000

export interface PerAdapterOptions {
  readonly snapshot: () => EngineSnapshot
  readonly adapters: AdapterSource
  /** Adapters with series of their own. */
  readonly maxTracked: number
  /** Milliseconds of any steady clock. */
  readonly now: () => number
}

const OUTCOMES = ['success', 'abort', 'error'] as const

/** Series of one value of the label. */
interface Tracked {
  /** By a request; -Infinity = never. */
  lastUsedMs: number
  readonly requests: Readonly<Record<(typeof OUTCOMES)[number], Tally>>
  readonly promptTokens: Tally
  readonly generationTokens: Tally
  readonly ttft: Distribution
  readonly e2e: Distribution
  readonly queueDepth: Tally
  readonly capacityWait: Tally
  readonly adapterWait: Tally
  readonly tiers: Readonly<Record<AdapterTier, TierSeries>>
  /** Takes all series out of their families. */
  readonly drop: () => void
}

interface TierSeries {
  readonly loads: Tally
  readonly failedLoads: Tally
  readonly loadingSeconds: Tally
  readonly evictions: Tally
  readonly bytes: Tally
}

export class PerAdapterFamilies {
  readonly #options: PerAdapterOptions
  readonly #families: ReturnType<typeof createFamilies>
  /** By label; never the base model or the rest. */
  readonly #tracked = new Map<string, Tracked>()
  readonly #base: Tracked
  readonly #other: Tracked

  constructor(registry: MetricsRegistry, options: PerAdapterOptions) {
    this.#options = options
    this.#families = createFamilies(registry)
    this.#base = this.#create(BASE_LABEL)
    this.#other = this.#create(OTHER_LABEL)
  }

  observePrompt({ adapter, sequences }: PromptRecord): void {
    const tracked = this.#of(adapter)
    for (const sequence of sequences) observeSequence(tracked, sequence)
  }

  observeActivity({ name, tier, type, durationMs }: AdapterActivity): void {
    const series = this.#of(name, false).tiers[tier]
    if (type === 'eviction') series.evictions.add(1)
    else {
      ;(type === 'load' ? series.loads : series.failedLoads).add(1)
      series.loadingSeconds.add(durationMs / 1000)
    }
  }

  /** Brings gauges up to date and forgets adapters off the list; to be called before the text is made. */
  refresh(): void {
    const { adapters } = this.#options
    for (const [name, tracked] of this.#tracked) {
      if (adapters.isListed(name)) continue
      this.#tracked.delete(name)
      tracked.drop()
    }
    this.#refreshQueueDepths()
    this.#refreshBytes()
  }

  #refreshQueueDepths(): void {
    const { numWaiting, waitingAdapters, numWaitingByAdapter } = this.#options.snapshot()
    const depths = new Map<Tracked, number>()
    let numLeft = numWaiting
    waitingAdapters.forEach((name, i) => {
      const count = Math.min(numLeft, numWaitingByAdapter[i] ?? 0)
      numLeft -= count
      const tracked = this.#of(name)
      depths.set(tracked, (depths.get(tracked) ?? 0) + count)
    })
    // What is on its way to the engine has no name yet.
    depths.set(this.#base, numLeft)
    for (const tracked of this.#all()) tracked.queueDepth.set(depths.get(tracked) ?? 0)
  }

  #refreshBytes(): void {
    let [otherHostBytes, otherDeviceBytes] = [0, 0]
    for (const { name, hostBytes, deviceBytes } of this.#options.adapters.list()) {
      const tiers = this.#tracked.get(name)?.tiers
      tiers?.host.bytes.set(hostBytes)
      tiers?.device.bytes.set(deviceBytes)
      if (tiers !== undefined) continue
      otherHostBytes += hostBytes
      otherDeviceBytes += deviceBytes
    }
    this.#other.tiers.host.bytes.set(otherHostBytes)
    this.#other.tiers.device.bytes.set(otherDeviceBytes)
  }

  #all(): Tracked[] {
    return [this.#base, this.#other, ...this.#tracked.values()]
  }

  /** `isUse`: a request is about it. Loads alone claim only places that are free. */
  #of(adapter: string | null, isUse = true): Tracked {
    if (adapter === null) return this.#base
    const { adapters, now } = this.#options
    let tracked = this.#tracked.get(adapter)
    if (tracked === undefined) {
      if (!adapters.isListed(adapter) || !this.#hasRoom(isUse)) return this.#other
      tracked = this.#create(adapter)
      this.#tracked.set(adapter, tracked)
    }
    if (isUse) tracked.lastUsedMs = now()
    return tracked
  }

  /** Makes room for another adapter where one may give way. */
  #hasRoom(isUse: boolean): boolean {
    const { maxTracked, now } = this.#options
    if (this.#tracked.size < maxTracked) return true
    if (!isUse || maxTracked === 0) return false
    const [name, oldest] = [...this.#tracked].reduce((a, b) => (b[1].lastUsedMs < a[1].lastUsedMs ? b : a))
    if (now() - oldest.lastUsedMs < STALE_MS) return false
    this.#tracked.delete(name)
    oldest.drop()
    return true
  }

  #create(adapter: string): Tracked {
    const drops: (() => void)[] = []
    const series = <S extends Series>(family: TextFamily<S>, labels: Readonly<Record<string, string>> = {}): S => {
      const one = family.series({ adapter, ...labels })
      drops.push(() => family.drop(one))
      return one
    }
    const families = this.#families
    const tierSeries = (tier: AdapterTier): TierSeries => ({
      loads: series(families.loads, { tier, result: 'ok' }),
      failedLoads: series(families.loads, { tier, result: 'error' }),
      loadingSeconds: series(families.loadingSeconds, { tier }),
      evictions: series(families.evictions, { tier }),
      bytes: series(families.bytes, { tier }),
    })
    return {
      lastUsedMs: Number.NEGATIVE_INFINITY,
      requests: {
        success: series(families.requests, { outcome: 'success' }),
        abort: series(families.requests, { outcome: 'abort' }),
        error: series(families.requests, { outcome: 'error' }),
      },
      promptTokens: series(families.tokens, { kind: 'prompt' }),
      generationTokens: series(families.tokens, { kind: 'generation' }),
      ttft: series(families.ttft),
      e2e: series(families.e2e),
      queueDepth: series(families.queueDepth),
      capacityWait: series(families.waitSeconds, { cause: 'capacity' }),
      adapterWait: series(families.waitSeconds, { cause: 'adapter' }),
      tiers: { host: tierSeries('host'), device: tierSeries('device') },
      drop: () => {
        for (const drop of drops) drop()
      },
    }
  }
}

function createFamilies(registry: MetricsRegistry) {
  const counter = (name: string, help: string, labels: readonly string[]) =>
    registry.tally(`lorikeet_adapter_${name}`, 'counter', help, ['adapter', ...labels])
  const gauge = (name: string, help: string, labels: readonly string[]) =>
    registry.tally(`lorikeet_adapter_${name}`, 'gauge', help, ['adapter', ...labels])
  const distribution = (name: string, help: string, bounds: readonly number[]) =>
    registry.distribution(`lorikeet_adapter_${name}`, help, ['adapter'], bounds)
  return {
    requests: counter('requests_total', 'Sequences that ended, by outcome: success, abort, error.', ['outcome']),
    tokens: counter('tokens_total', 'Tokens of sequences that ended, by kind: prompt, generation.', ['kind']),
    ttft: distribution('ttft_seconds', 'Arrival to first token.', ADAPTER_TTFT_BOUNDS_S),
    e2e: distribution('e2e_seconds', 'Arrival to end.', ADAPTER_E2E_BOUNDS_S),
    queueDepth: gauge('queue_depth', 'Requests in the queue.', []),
    waitSeconds: counter('wait_seconds_total', 'Time in the queue by what was missing: capacity, adapter.', ['cause']),
    loads: counter('loads_total', 'Loads into a tier (host from disk, device from host) by result: ok, error.', [
      'tier',
      'result',
    ]),
    loadingSeconds: counter('loading_seconds_total', 'Time of those loads by tier: host, device.', ['tier']),
    evictions: counter('evictions_total', 'Times taken out of a tier, host or device, to make room.', ['tier']),
    bytes: gauge('bytes', 'Weights in a tier: host, device.', ['tier']),
  }
}

function observeSequence(tracked: Tracked, { reason, times }: SequenceRecord): void {
  const { arrivedAtMs, firstScheduledAtMs, firstTokenAtMs, finishedAtMs, adapterWaitMs } = times
  const outcome = reason === 'abort' || reason === 'error' ? reason : 'success'
  tracked.requests[outcome].add(1)
  tracked.generationTokens.add(times.numOutputTokens)
  tracked.e2e.observe(Math.max(0, finishedAtMs - arrivedAtMs) / 1000)
  const waitMs = Math.max(0, (firstScheduledAtMs ?? finishedAtMs) - arrivedAtMs)
  const missingMs = Math.min(waitMs, adapterWaitMs)
  tracked.adapterWait.add(missingMs / 1000)
  tracked.capacityWait.add((waitMs - missingMs) / 1000)
  if (firstTokenAtMs === null) return
  // A prompt that was never computed is not charged.
  tracked.promptTokens.add(times.numPromptTokens)
  tracked.ttft.observe(Math.max(0, firstTokenAtMs - arrivedAtMs) / 1000)
}
