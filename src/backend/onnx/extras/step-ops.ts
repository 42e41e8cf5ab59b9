import { sortOps } from '../graph-variant.ts'
import type { ResidentAdapter } from '../resident-adapters.ts'
import type { ExtraOp } from './extra.ts'

/** Ops of the adapters of a step, kept from step to step: an adapter has hundreds, and a step mostly has the adapters of the last. */
export class StepOps {
  #residents: readonly ResidentAdapter[] = []
  #ops: readonly ExtraOp[] = []

  of(residents: readonly ResidentAdapter[]): readonly ExtraOp[] {
    const isSame = residents.length === this.#residents.length && residents.every((each, i) => each === this.#residents[i])
    if (isSame) return this.#ops
    const ops = new Map<string, ExtraOp>()
    for (const resident of residents) for (const op of resident.ops) ops.set(op.key, op)
    this.#residents = residents
    this.#ops = sortOps(ops.values())
    return this.#ops
  }

  /** Lets go of the last step's adapters. */
  forget(): void {
    this.#residents = []
    this.#ops = []
  }
}
