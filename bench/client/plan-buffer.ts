import type { PlannedRequest } from '../workload/planned-request.ts'

/** Requests planned ahead of their time: reading a trace waits for the disk, and no request may wait for that. */
const MAX_AHEAD = 256

/** Planning yields to the event loop this often, so that it delays neither sends nor the stamps of what arrives. */
const SLICE_MS = 1

/** Plans ahead in slices while requests wait for their time; reading from it never waits. */
export class PlanBuffer {
  readonly #schedule: AsyncIterator<PlannedRequest>
  readonly #onChange: () => void
  readonly #planned: PlannedRequest[] = []
  /** What planning threw; what was planned before it is still given out. */
  error: unknown = null
  #isExhausted = false
  #isFilling = false

  /** @param onChange called when there is more to read, or when there will be no more */
  constructor(schedule: AsyncIterator<PlannedRequest>, onChange: () => void) {
    this.#schedule = schedule
    this.#onChange = onChange
    this.#refill()
  }

  /** True when everything was given out. */
  get isDone(): boolean {
    return this.#planned.length === 0 && (this.#isExhausted || this.error !== null)
  }

  /** The next request in order; undefined when none is planned yet, or after the last. */
  peek(): PlannedRequest | undefined {
    return this.#planned[0]
  }

  shift(): void {
    this.#planned.shift()
    this.#refill()
  }

  /** Plans no more and forgets what was planned. */
  close(): void {
    this.#isExhausted = true
    this.#planned.length = 0
  }

  #refill(): void {
    if (this.#isFilling || this.#isExhausted || this.error !== null || this.#planned.length >= MAX_AHEAD / 2) return
    this.#isFilling = true
    this.#fill()
      .catch((error: unknown) => {
        this.error = error
      })
      .finally(() => {
        this.#isFilling = false
        this.#onChange()
      })
  }

  async #fill(): Promise<void> {
    let sliceEndMs = performance.now() + SLICE_MS
    while (this.#planned.length < MAX_AHEAD && !this.#isExhausted) {
      const step = await this.#schedule.next()
      if (step.done === true) this.#isExhausted = true
      else if (!this.#isExhausted) this.#planned.push(step.value)
      if (this.#planned.length === 1) this.#onChange()
      if (performance.now() < sliceEndMs) continue
      await new Promise<void>((resolve) => setImmediate(resolve))
      sliceEndMs = performance.now() + SLICE_MS
    }
    if (this.#isExhausted) await this.#schedule.return?.()
  }
}
