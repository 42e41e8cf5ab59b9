import type { PlannedRequest } from '../workload/planned-request.ts'
import { PlanBuffer } from './plan-buffer.ts'

/** A timer of Node is late by up to a millisecond: the last stretch is waited out in turns of the event loop. */
const SPIN_MS = 1.5

/** The longest a timer of Node can run. */
const MAX_TIMER_MS = 2 ** 31 - 1

export interface DispatcherOptions {
  readonly schedule: AsyncIterator<PlannedRequest>
  /** Seconds from the start of the run. */
  readonly now: () => number
  /** False while too many requests wait for a cap on concurrency. */
  readonly hasRoom: () => boolean
  readonly dispatch: (planned: PlannedRequest, dispatchedS: number) => void
  /** Called once: every request was dispatched, or planning failed. */
  readonly onDone: (error: unknown) => void
}

/**
 * Gives out each request at its time. Beside its own timer it is poked by whatever else runs (`pump`): after a burst of
 * answers the event loop may be busy for tens of milliseconds, and a request due in between is sent in between.
 */
export class Dispatcher {
  readonly #options: DispatcherOptions
  readonly #buffer: PlanBuffer
  #timer: NodeJS.Timeout | null = null
  #immediate: NodeJS.Immediate | null = null
  #isPumping = false
  #isDone = false
  /** The cap held requests back, and the schedule has not been caught up with since: that is no lag of the client. */
  #isHeldBack = false

  constructor(options: DispatcherOptions) {
    this.#options = options
    this.#buffer = new PlanBuffer(options.schedule, () => this.pump())
  }

  get isDone(): boolean {
    return this.#isDone
  }

  /** Dispatches everything that is due, and sees to it that it is called again in time. */
  pump(): void {
    if (this.#isPumping || this.#isDone) return
    this.#isPumping = true
    try {
      this.#dispatchDue()
    } finally {
      this.#isPumping = false
    }
  }

  /** Dispatches nothing more; `onDone` is called if it was not. */
  stop(): void {
    this.#buffer.close()
    this.#finish(null)
  }

  #dispatchDue(): void {
    const { now, hasRoom, dispatch } = this.#options
    for (;;) {
      const next = this.#buffer.peek()
      if (next === undefined) {
        if (this.#buffer.isDone) this.#finish(this.#buffer.error)
        return
      }
      const nowS = now()
      if (next.offsetS > nowS) {
        this.#isHeldBack = false
        this.#wait((next.offsetS - nowS) * 1000)
        return
      }
      if (!hasRoom()) {
        this.#isHeldBack = true
        return
      }
      this.#buffer.shift()
      dispatch(next, this.#isHeldBack ? next.offsetS : nowS)
    }
  }

  #wait(ms: number): void {
    if (ms > SPIN_MS) {
      if (this.#timer !== null) return
      this.#timer = setTimeout(
        () => {
          this.#timer = null
          this.pump()
        },
        Math.min(Math.floor(ms - SPIN_MS / 2), MAX_TIMER_MS),
      )
      return
    }
    this.#immediate ??= setImmediate(() => {
      this.#immediate = null
      this.pump()
    })
  }

  #finish(error: unknown): void {
    if (this.#isDone) return
    this.#isDone = true
    if (this.#timer !== null) clearTimeout(this.#timer)
    if (this.#immediate !== null) clearImmediate(this.#immediate)
    this.#options.onDone(error)
  }
}
