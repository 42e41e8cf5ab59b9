// Adapters as a whole: what a router reads, how many are where, and what loading costs.

import { LOAD_BOUNDS_S } from './buckets.ts'
import type { MetricsRegistry } from './metrics-registry.ts'
import type { AdapterActivity, AdapterSource, AdapterTier, EngineSnapshot, ListedAdapter } from './records.ts'
import type { Distribution } from './text-family.ts'

export interface AdapterFamiliesOptions {
  readonly snapshot: () => EngineSnapshot
  readonly adapters: AdapterSource
  /** Adapters that a step may hold. */
  readonly maxAdapters: number
  /** `resident`: adapters on the device count as running, as the text of the Gateway API's protocol has it. */
  readonly loraInfo: 'running' | 'resident'
  /** Budgets in bytes. */
  readonly limits: Readonly<Record<AdapterTier, number>>
}

/** Names come from clients, so what is remembered of failed loads is bounded. */
const MAX_FAILED_NAMES = 1024

export class AdapterFamilies {
  readonly #options: AdapterFamiliesOptions
  readonly #loadSeconds: Readonly<Record<AdapterTier, Distribution>>
  /** Names whose last load failed. */
  readonly #failed = new Set<string>()

  constructor(registry: MetricsRegistry, options: AdapterFamiliesOptions) {
    this.#options = options
    this.#registerLoraInfo(registry)
    this.#registerStates(registry)
    this.#registerMemory(registry)
    const load = registry.distribution(
      'lorikeet_adapter_load_seconds',
      'Time of one load with its wait for others, by where from: disk to host memory, host to the device.',
      ['from'],
      LOAD_BOUNDS_S,
    )
    this.#loadSeconds = { host: load.series({ from: 'disk' }), device: load.series({ from: 'host' }) }
  }

  observe({ name, tier, type, durationMs }: AdapterActivity): void {
    if (type === 'load') {
      this.#loadSeconds[tier].observe(durationMs / 1000)
      this.#failed.delete(name)
    } else if (type === 'failed-load') {
      this.#failed.add(name)
      const [oldest] = this.#failed
      if (this.#failed.size > MAX_FAILED_NAMES && oldest !== undefined) this.#failed.delete(oldest)
    }
  }

  #registerLoraInfo(registry: MetricsRegistry): void {
    const { snapshot, adapters, maxAdapters, loraInfo } = this.#options
    const names = ['max_lora', 'waiting_lora_adapters', 'running_lora_adapters']
    const help = 'Adapters of running and waiting requests; the value is the time of the scrape.'
    // Readers take the newest of several series: one is left after every scrape.
    registry.gauge('vllm:lora_requests_info', help, names, (set) => {
      const { runningAdapters, waitingAdapters } = snapshot()
      const running =
        loraInfo === 'running'
          ? runningAdapters
          : adapters
              .list()
              .filter(isOnDevice)
              .map(({ name }) => name)
      const lists = {
        waiting_lora_adapters: [...waitingAdapters].sort().join(','),
        running_lora_adapters: [...running].sort().join(','),
      }
      set({ max_lora: String(maxAdapters), ...lists }, Date.now() / 1000)
    })
  }

  #registerStates(registry: MetricsRegistry): void {
    const { adapters, maxAdapters } = this.#options
    registry.gauge(
      'lorikeet_adapter_state',
      'Number of adapters by where their weights are: registered (on disk only), host, device, loading; failed counts names whose last load failed.',
      ['state'],
      (set) => {
        let numOnDisk = 0
        let numInHost = 0
        let numOnDevice = 0
        let numLoading = adapters.numLoading()
        for (const adapter of adapters.list()) {
          if (adapter.isLoading) numLoading++
          else if (isOnDevice(adapter)) numOnDevice++
          else if (adapter.state === 'loaded') numInHost++
          else numOnDisk++
        }
        set({ state: 'registered' }, numOnDisk)
        set({ state: 'host' }, numInHost)
        set({ state: 'device' }, numOnDevice)
        set({ state: 'loading' }, numLoading)
        set({ state: 'failed' }, this.#failed.size)
      },
    )
    registry.gauge('lorikeet_adapter_slots', 'Adapters that a step may hold.', [], (set) => set({}, maxAdapters))
    registry.gauge('lorikeet_adapter_slots_used', 'Adapters on the device.', [], (set) => {
      set({}, adapters.list().filter(isOnDevice).length)
    })
  }

  #registerMemory(registry: MetricsRegistry): void {
    const { adapters, limits } = this.#options
    registry.gauge('lorikeet_adapter_memory_bytes', 'Weights of all adapters by tier: host, device.', ['tier'], (set) => {
      set(
        { tier: 'host' },
        sum(adapters.list(), ({ hostBytes }) => hostBytes),
      )
      set(
        { tier: 'device' },
        sum(adapters.list(), ({ deviceBytes }) => deviceBytes),
      )
    })
    registry.gauge(
      'lorikeet_adapter_memory_limit_bytes',
      'Budget for weights of adapters by tier: host, device.',
      ['tier'],
      (set) => {
        set({ tier: 'host' }, limits.host)
        set({ tier: 'device' }, limits.device)
      },
    )
  }
}

function isOnDevice({ state }: ListedAdapter): boolean {
  return state === 'active' || state === 'pinned'
}

function sum(adapters: readonly ListedAdapter[], measure: (adapter: ListedAdapter) => number): number {
  let total = 0
  for (const adapter of adapters) total += measure(adapter)
  return total
}
