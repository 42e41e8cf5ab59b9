import type { AdapterActivity } from './adapter-generation.ts'

/** What happened to weights since somebody last asked. */
export class ActivityLog {
  readonly #clock: () => number
  #entries: AdapterActivity[] = []

  /** `clock` in epoch milliseconds. */
  constructor(clock: () => number) {
    this.#clock = clock
  }

  addLoad(name: string, tier: AdapterActivity['tier'], startedAtMs: number, hasFailed = false): void {
    const durationMs = this.#clock() - startedAtMs
    this.#entries.push({ name, tier, type: hasFailed ? 'failed-load' : 'load', durationMs })
  }

  addEviction(name: string, tier: AdapterActivity['tier']): void {
    this.#entries.push({ name, tier, type: 'eviction', durationMs: 0 })
  }

  take(): readonly AdapterActivity[] {
    const entries = this.#entries
    if (entries.length > 0) this.#entries = []
    return entries
  }
}
