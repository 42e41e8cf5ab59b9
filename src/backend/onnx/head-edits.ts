// What adapters change at the head, done on the few logit rows that need it: a graph feature would cost every other row.

import { at } from '../../core/invariant.ts'
import type { StepPlan } from '../../core/step-plan.ts'
import type { ModelSource } from '../../model/model-source.ts'
import { parameterOf } from './decoder-layout.ts'
import type { ResidentAdapters } from './resident-adapters.ts'
import type { SitePrimitives } from './site-primitives.ts'
import { applyOutputSlots } from './token-embedding.ts'

export interface HeadRows {
  /** Scores before the final soft cap. [numLogitRows, vocabSize] */
  readonly scores: Float32Array
  /** [numLogitRows, hiddenSize] */
  readonly inputs: Float32Array
}

export class HeadEdits {
  readonly #model: ModelSource
  readonly #adapters: ResidentAdapters
  readonly #bias: Float32Array | null
  /** Base head, read when an adapter first scales its input. [vocabSize, hiddenSize] */
  #weight: Float32Array | null = null

  constructor(model: ModelSource, adapters: ResidentAdapters) {
    this.#model = model
    this.#adapters = adapters
    this.#bias = model.parameters.has('lmHead.bias') ? model.read('lmHead.bias') : null
  }

  areNeeded(plan: StepPlan): boolean {
    for (let i = 0; i < plan.numLogitRows; i++) if (this.#editsOf(plan, i) !== undefined) return true
    return false
  }

  /** Rewrites the edited rows of `scores` in place. */
  apply(plan: StepPlan, { scores, inputs }: HeadRows): void {
    const { vocabSize, hiddenSize } = this.#model.spec
    for (let i = 0; i < plan.numLogitRows; i++) {
      const edits = this.#editsOf(plan, i)
      if (edits === undefined) continue
      const z = scores.subarray(i * vocabSize, (i + 1) * vocabSize)
      this.#edit(edits, inputs.subarray(i * hiddenSize, (i + 1) * hiddenSize), z)
    }
  }

  #editsOf(plan: StepPlan, logitRow: number): SitePrimitives | undefined {
    const slot = plan.adapterSlotOfToken[at(plan.logitRows, logitRow)] as number
    return this.#adapters.find(slot)?.primitives.get('lmHead')
  }

  #edit(edits: SitePrimitives, x: Float32Array, z: Float32Array): void {
    const inputScale = edits.vectors.get('input-scale')
    const u = inputScale === undefined ? x : x.map((value, i) => value * (inputScale[i] as number))
    if (edits.replace !== null || inputScale !== undefined) {
      const weight = edits.replace?.weight ?? this.#baseWeight()
      for (let id = 0; id < z.length; id++) z[id] = dotRow(weight, id, u)
    } else if (this.#bias !== null) {
      for (let id = 0; id < z.length; id++) z[id] = (z[id] as number) - (this.#bias[id] as number)
    }
    edits.rows?.rowIds.forEach((id, row) => {
      z[id] = dotRow(edits.rows?.rows ?? u, row, u)
    })
    applyOutputSlots(edits, this.#bias, z, ({ a, rank }) => Float64Array.from({ length: rank }, (_, r) => dotRow(a, r, x)))
  }

  #baseWeight(): Float32Array {
    this.#weight ??= this.#model.read(parameterOf(this.#model.spec, { site: 'lmHead', numOut: this.#model.spec.vocabSize }))
    return this.#weight
  }
}

/** Row `row` of a matrix as wide as `x`, times x. */
function dotRow(matrix: Float32Array, row: number, x: Float32Array): number {
  const offset = row * x.length
  let sum = 0
  for (let i = 0; i < x.length; i++) sum += (matrix[offset + i] as number) * (x[i] as number)
  return sum
}
