// Turns an engine over: step after step while there is work, asleep while there is none.

import { setImmediate as nextTurn } from 'node:timers/promises'
import type { EngineCommand } from './messages.ts'

/** What the loop needs of an engine. */
export interface SteppingEngine {
  readonly isIdle: boolean
  readonly isShutDown: boolean
  step(): Promise<boolean>
}

/**
 * With requests waiting and nothing to run, something asynchronous (an adapter load) is under way and wakes the loop when it
 * ends. This is how long a lost wake-up could delay them.
 */
const RETRY_MS = 50

export class EngineLoop {
  readonly #inbox: EngineCommand[] = []
  #wake: (() => void) | null = null
  #isAwake = false

  /** Hands a command over and wakes the loop. */
  push(command: EngineCommand): void {
    this.#inbox.push(command)
    this.wake()
  }

  /** The oldest command not yet taken, or null. */
  receive(): EngineCommand | null {
    return this.#inbox.shift() ?? null
  }

  /** Makes the loop take another turn: call when something it waits for may have happened. */
  wake(): void {
    this.#isAwake = true
    this.#wake?.()
  }

  /** Returns after a shutdown command; rejects when the engine is broken. */
  async run(engine: SteppingEngine): Promise<void> {
    while (!engine.isShutDown) {
      this.#isAwake = false
      const hasRun = await engine.step()
      if (engine.isShutDown) return
      // Other work of this thread (loader replies, timers) gets its turn between any two steps.
      if (hasRun) await nextTurn()
      else await this.#sleep(engine.isIdle ? null : RETRY_MS)
    }
  }

  #sleep(timeoutMs: number | null): Promise<void> {
    if (this.#isAwake || this.#inbox.length > 0) return nextTurn()
    return new Promise((resolve) => {
      const timer = timeoutMs === null ? null : setTimeout(() => this.#wake?.(), timeoutMs)
      this.#wake = () => {
        this.#wake = null
        if (timer !== null) clearTimeout(timer)
        resolve()
      }
    })
  }
}
