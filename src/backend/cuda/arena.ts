// Room for adapters in one range of device memory: best fit, neighbours joined when freed.

import { invariant } from '../../core/invariant.ts'

interface Range {
  readonly start: number
  readonly numBytes: number
}

/** Kernels read 16 bytes at a time; memory moves in sectors of 32 and lines of 128. */
export const ARENA_ALIGNMENT = 256

export class Arena {
  readonly #free: Range[]
  readonly #used = new Map<number, number>()
  readonly #numBytes: number

  constructor(start: number, numBytes: number) {
    this.#free = [{ start, numBytes }]
    this.#numBytes = numBytes
  }

  get usedBytes(): number {
    return [...this.#used.values()].reduce((sum, each) => sum + each, 0)
  }

  /** Address of a run of `numBytes`, or null when no gap is large enough. */
  tryAllocate(numBytes: number): number | null {
    const need = alignUp(Math.max(1, numBytes))
    let best = -1
    for (const [i, range] of this.#free.entries()) {
      if (range.numBytes < need) continue
      if (best === -1 || range.numBytes < (this.#free[best] as Range).numBytes) best = i
    }
    if (best === -1) return null
    const { start, numBytes: available } = this.#free[best] as Range
    if (available === need) this.#free.splice(best, 1)
    else this.#free[best] = { start: start + need, numBytes: available - need }
    this.#used.set(start, need)
    return start
  }

  release(start: number): void {
    const numBytes = this.#used.get(start)
    invariant(numBytes !== undefined, `address ${start} is allocated`)
    this.#used.delete(start)
    this.#free.push({ start, numBytes })
    this.#free.sort((a, b) => a.start - b.start)
    for (let i = this.#free.length - 2; i >= 0; i--) {
      const [left, right] = [this.#free[i] as Range, this.#free[i + 1] as Range]
      if (left.start + left.numBytes !== right.start) continue
      this.#free.splice(i, 2, { start: left.start, numBytes: left.numBytes + right.numBytes })
    }
  }

  checkIntegrity(): void {
    const freeBytes = this.#free.reduce((sum, range) => sum + range.numBytes, 0)
    invariant(freeBytes + this.usedBytes === this.#numBytes, 'every byte of the arena is free or used')
  }
}

export function alignUp(numBytes: number): number {
  return Math.ceil(numBytes / ARENA_ALIGNMENT) * ARENA_ALIGNMENT
}
