// What adapters change at the head, done on the few logit rows that need it: a graph feature would cost every other row.

import { applyOutputSlots } from '../../adapter/arithmetic/output-slots.ts'
import { rotated } from '../../adapter/arithmetic/rotate.ts'
import type { SitePrimitives } from '../../adapter/site-primitives.ts'
import { at } from '../../core/invariant.ts'
import type { StepPlan } from '../../core/step-plan.ts'
import type { ModelSource } from '../../model/model-source.ts'
import { parameterOf } from './decoder-layout.ts'
import type { HeadProduct } from './head-product.ts'
import type { ResidentAdapters } from './resident-adapters.ts'

export interface HeadRows {
  /** Scores before the final soft cap. [numLogitRows, vocabSize] */
  readonly scores: Float32Array
  /** [numLogitRows, hiddenSize] */
  readonly inputs: Float32Array
}

export class HeadEdits {
  readonly #model: ModelSource
  readonly #adapters: ResidentAdapters
  readonly #product: HeadProduct
  readonly #bias: Float32Array | null
  /** Base head, read when an adapter first scales its input. [vocabSize, hiddenSize] */
  #weight: Float32Array | null = null

  constructor(model: ModelSource, adapters: ResidentAdapters, product: HeadProduct) {
    this.#model = model
    this.#adapters = adapters
    this.#product = product
    this.#bias = model.parameters.has('lmHead.bias') ? model.read('lmHead.bias') : null
  }

  areNeeded(plan: StepPlan): boolean {
    for (let i = 0; i < plan.numLogitRows; i++) if (this.#editsOf(plan, i) !== undefined) return true
    return false
  }

  /** Rewrites the edited rows of `scores` in place. */
  async apply(plan: StepPlan, { scores, inputs }: HeadRows): Promise<void> {
    const { vocabSize, hiddenSize } = this.#model.spec
    const rowsOf = new Map<SitePrimitives, number[]>()
    for (let i = 0; i < plan.numLogitRows; i++) {
      const edits = this.#editsOf(plan, i)
      if (edits === undefined) continue
      const rows = rowsOf.get(edits)
      if (rows === undefined) rowsOf.set(edits, [i])
      else rows.push(i)
    }
    for (const [edits, rows] of rowsOf) {
      const x = new Float32Array(rows.length * hiddenSize)
      rows.forEach((row, i) => {
        x.set(inputs.subarray(row * hiddenSize, (row + 1) * hiddenSize), i * hiddenSize)
      })
      const u = baseInputs(x, edits, hiddenSize)
      const products = await this.#baseProducts(edits, u)
      for (const [i, row] of rows.entries()) {
        const z = scores.subarray(row * vocabSize, (row + 1) * vocabSize)
        if (products !== null) z.set(products.subarray(i * vocabSize, (i + 1) * vocabSize))
        else if (this.#bias !== null)
          for (let id = 0; id < vocabSize; id++) z[id] = (z[id] as number) - (this.#bias[id] as number)
        const rowOf = (matrix: Float32Array) => matrix.subarray(i * hiddenSize, (i + 1) * hiddenSize)
        this.#edit(edits, rowOf(x), rowOf(u), z)
      }
    }
  }

  /** u W^T where it is not the graph's x W^T, else null. */
  async #baseProducts({ replace, vectors, rotate }: SitePrimitives, u: Float32Array): Promise<Float32Array | null> {
    if (replace === null && rotate === null && !vectors.has('input-scale')) return null
    return this.#product.multiply(u, replace?.weight ?? this.#baseWeight(), this.#model.spec.hiddenSize)
  }

  #edit(edits: SitePrimitives, x: Float32Array, u: Float32Array, z: Float32Array): void {
    const { rows } = edits
    rows?.rowIds.forEach((id, row) => {
      z[id] = dotRow(rows.rows, row, u)
    })
    applyOutputSlots(edits, this.#bias, [z], [x])
  }

  #editsOf(plan: StepPlan, logitRow: number): SitePrimitives | undefined {
    const slot = plan.adapterSlotOfToken[at(plan.logitRows, logitRow)] as number
    return this.#adapters.find(slot)?.primitives.get('lmHead')
  }

  #baseWeight(): Float32Array {
    this.#weight ??= this.#model.read(parameterOf(this.#model.spec, { site: 'lmHead', numOut: this.#model.spec.vocabSize }))
    return this.#weight
  }
}

/** What the base head multiplies: x turned, then scaled. `x` [numRows, width] */
function baseInputs(x: Float32Array, { rotate, vectors }: SitePrimitives, width: number): Float32Array {
  const scale = vectors.get('input-scale')
  const turned = rotate === null ? x : new Float32Array(x.length)
  if (rotate !== null) {
    for (let start = 0; start < x.length; start += width) turned.set(rotated(x.subarray(start, start + width), rotate), start)
  }
  return scale === undefined ? turned : turned.map((value, i) => value * (scale[i % width] as number))
}

/** Row `row` of a matrix as wide as `x`, times x. */
function dotRow(matrix: Float32Array, row: number, x: Float32Array): number {
  const offset = row * x.length
  let sum = 0
  for (let i = 0; i < x.length; i++) sum += (matrix[offset + i] as number) * (x[i] as number)
  return sum
}
