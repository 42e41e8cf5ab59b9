// The first hidden states. Computed here and not in the graph: it is a copy of one row a token, and every edit an adapter
// may make to it (own rows, own tables, low rank, vectors) is plain code this way.

import { invariant } from '../../core/invariant.ts'
import { type StepPlan, virtualTokenId } from '../../core/step-plan.ts'
import type { ModelSource } from '../../model/model-source.ts'
import type { ResidentAdapter, ResidentAdapters } from './resident-adapters.ts'
import type { SitePrimitives } from './site-primitives.ts'

export class TokenEmbedding {
  readonly #table: Float32Array // [vocabSize, hiddenSize]
  readonly #positions: Float32Array | null // [maxPositions, hiddenSize]
  readonly #width: number
  readonly #scale: number
  readonly #adapters: ResidentAdapters

  constructor(model: ModelSource, adapters: ResidentAdapters) {
    const { spec } = model
    this.#table = model.read('embed')
    this.#positions = spec.learnedPositions ? model.read('positions') : null
    this.#width = spec.hiddenSize
    this.#scale = spec.embedScale
    this.#adapters = adapters
  }

  /** `out` [numTokens, hiddenSize]. */
  fill(plan: StepPlan, out: Float32Array): void {
    const width = this.#width
    for (let token = 0; token < plan.numTokens; token++) {
      const row = out.subarray(token * width, (token + 1) * width)
      const adapter = this.#adapters.find(plan.adapterSlotOfToken[token] as number)
      const own = adapter?.primitives
      const id = plan.tokenIds[token] as number
      if (id < 0) row.set(softPromptRow(adapter, virtualTokenId(id), width))
      else this.#look(this.#table, own?.get('embed'), id, row)
      if (id >= 0 && this.#scale !== 1) for (let i = 0; i < width; i++) row[i] = (row[i] as number) * this.#scale
      if (this.#positions === null) continue
      const position = new Float32Array(width)
      this.#look(this.#positions, own?.get('positions'), plan.positions[token] as number, position)
      for (let i = 0; i < width; i++) row[i] = (row[i] as number) + (position[i] as number)
    }
  }

  #look(base: Float32Array, own: SitePrimitives | undefined, id: number, out: Float32Array): void {
    const width = this.#width
    invariant(id >= 0 && (id + 1) * width <= base.length, `row ${id} is in the table`)
    const ownRow = own?.rows?.rowIds.indexOf(id) ?? -1
    const table = ownRow === -1 ? (own?.replace?.weight ?? base) : (own?.rows?.rows ?? base)
    const row = ownRow === -1 ? id : ownRow
    out.set(table.subarray(row * width, (row + 1) * width))
    if (own === undefined) return
    // A one-hot input: A's product is its column `id`.
    const numRows = base.length / width
    applyOutputSlots(own, null, out, ({ a, rank }) =>
      Float64Array.from({ length: rank }, (_, r) => a[r * numRows + id] as number),
    )
  }
}

function softPromptRow(adapter: ResidentAdapter | null, index: number, width: number): Float32Array {
  const prompt = adapter?.adapter.virtualTokens
  invariant(prompt?.kind === 'soft-prompt' && index < prompt.numTokens, `the adapter gives virtual token ${index}`)
  return prompt.rows.subarray(index * width, (index + 1) * width)
}

/** Everything of adapter/primitive.ts after the base product, for one row. `shrink` gives A x, [rank]. */
export function applyOutputSlots(
  { vectors, lowRanks }: SitePrimitives,
  baseBias: Float32Array | null,
  z: Float32Array,
  shrink: (lowRank: SitePrimitives['lowRanks'][number]) => Float64Array,
): void {
  const factor = vectors.get('factor')
  const bias = vectors.get('bias') ?? baseBias
  if (factor !== undefined) for (let i = 0; i < z.length; i++) z[i] = (z[i] as number) * (factor[i] as number)
  if (bias !== null) for (let i = 0; i < z.length; i++) z[i] = (z[i] as number) + (bias[i] as number)
  for (const lowRank of lowRanks) {
    const { b, rank, scale, biasB } = lowRank
    const inner = shrink(lowRank)
    for (let i = 0; i < z.length; i++) {
      let sum = biasB === null ? 0 : (biasB[i] as number)
      for (let r = 0; r < rank; r++) sum += (b[i * rank + r] as number) * (inner[r] as number)
      z[i] = (z[i] as number) + scale * sum
    }
  }
  const outputScale = vectors.get('output-scale')
  const shift = vectors.get('shift')
  if (outputScale !== undefined) for (let i = 0; i < z.length; i++) z[i] = (z[i] as number) * (outputScale[i] as number)
  if (shift !== undefined) for (let i = 0; i < z.length; i++) z[i] = (z[i] as number) + (shift[i] as number)
}
