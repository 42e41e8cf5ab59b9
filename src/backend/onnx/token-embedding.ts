// The first hidden states. Computed here and not in the graph: it is a copy of one row a token, and every edit an adapter
// may make to it (own rows, own tables, low rank, vectors, rotations, couplings) is plain code this way.

import { embeddingRow } from '../../adapter/arithmetic/embedding-row.ts'
import { tokenRow } from '../../adapter/arithmetic/token-row.ts'
import { keyIndexOf } from '../../adapter/step-calls.ts'
import { invariant } from '../../core/invariant.ts'
import { type StepPlan, virtualTokenId } from '../../core/step-plan.ts'
import type { ModelSource } from '../../model/model-source.ts'
import type { ResidentAdapter, ResidentAdapters } from './resident-adapters.ts'

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
    for (let seq = 0; seq < plan.numSeqs; seq++) {
      const end = plan.queryStart[seq + 1] as number
      for (let token = plan.queryStart[seq] as number; token < end; token++) this.#fillRow(plan, seq, token, out)
    }
  }

  #fillRow(plan: StepPlan, seq: number, token: number, out: Float32Array): void {
    const width = this.#width
    const row = out.subarray(token * width, (token + 1) * width)
    const adapter = this.#adapters.find(plan.adapterSlotOfToken[token] as number)
    const id = plan.tokenIds[token] as number
    if (id < 0) row.set(softPromptRow(adapter, virtualTokenId(id), width))
    else {
      invariant((id + 1) * width <= this.#table.length, `token id ${id} is in the vocabulary`)
      const promptStart = plan.promptStarts[seq] as number
      const promptIndex = keyIndexOf(plan, seq, token) - promptStart
      const place = { id, promptIndex, promptLength: (plan.promptEnds[seq] as number) - promptStart }
      tokenRow(this.#table, adapter?.primitives.get('embed') ?? null, place, this.#scale, row)
    }
    if (this.#positions === null) return
    const position = new Float32Array(width)
    const index = plan.positions[token] as number
    invariant(index >= 0 && (index + 1) * width <= this.#positions.length, `position ${index} is in the table`)
    embeddingRow(this.#positions, adapter?.primitives.get('positions') ?? null, index, position)
    for (let i = 0; i < width; i++) row[i] = (row[i] as number) + (position[i] as number)
  }
}

function softPromptRow(adapter: ResidentAdapter | null, index: number, width: number): Float32Array {
  const prompt = adapter?.adapter.virtualTokens
  invariant(prompt?.kind === 'soft-prompt' && index < prompt.numTokens, `the adapter gives virtual token ${index}`)
  return prompt.rows.subarray(index * width, (index + 1) * width)
}
