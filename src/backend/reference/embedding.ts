import { addTo } from '../../adapter/arithmetic/dot.ts'
import { embeddingRow } from '../../adapter/arithmetic/embedding-row.ts'
import { tokenRow } from '../../adapter/arithmetic/token-row.ts'
import type { SoftPrompt } from '../../adapter/primitive.ts'
import { at, invariant } from '../../core/invariant.ts'
import { virtualTokenId } from '../../core/step-plan.ts'
import type { ForwardContext } from './forward-context.ts'
import { createMatrix, type Matrix, rowOf } from './matrix.ts'
import type { TokenPlace } from './token-places.ts'

/** The step's rows as they enter the first layer. [numTokens, hiddenSize] */
export function embedTokens(context: ForwardContext, places: readonly TokenPlace[]): Matrix {
  const { spec, weights, adapters, plan } = context
  const hidden = createMatrix(plan.numTokens, spec.hiddenSize)
  for (let token = 0; token < plan.numTokens; token++) {
    const row = rowOf(hidden, token)
    const id = plan.tokenIds[token] as number
    const slot = plan.adapterSlotOfToken[token] as number
    if (id < 0) row.set(virtualRow(context, token, ({ rows }) => rows))
    else {
      invariant(id < spec.vocabSize, `token id ${id} is in the vocabulary`)
      tokenRow(weights.get('embed').weight, adapters.find(slot, 'embed'), { ...at(places, token), id }, spec.embedScale, row)
    }
    if (!spec.learnedPositions) continue
    const position = new Float32Array(spec.hiddenSize)
    embeddingRow(weights.get('positions').weight, adapters.find(slot, 'positions'), plan.positions[token] as number, position)
    addTo(row, position)
  }
  return hidden
}

/** Prefix propagation (arXiv:2305.12086): rows of their own are added to a soft prompt at the input of each layer. */
export function addLayerRows(context: ForwardContext, layer: number, hidden: Matrix): void {
  const { plan, adapters } = context
  for (let token = 0; token < plan.numTokens; token++) {
    if ((plan.tokenIds[token] as number) >= 0) continue
    const prompt = adapters.virtualTokens(plan.adapterSlotOfToken[token] as number)
    const layerRows = prompt?.kind === 'soft-prompt' ? prompt.layerRows : null
    if (layerRows === null) continue
    addTo(
      rowOf(hidden, token),
      virtualRow(context, token, () => at(layerRows, layer)),
    )
  }
}

/** Prompt tuning (arXiv:2104.08691): [P; E], the rows of P as the adapter stores them. */
function virtualRow(
  { spec, adapters, plan }: ForwardContext,
  token: number,
  rowsOf: (prompt: SoftPrompt) => Float32Array,
): Float32Array {
  const prompt = adapters.virtualTokens(plan.adapterSlotOfToken[token] as number)
  const index = virtualTokenId(plan.tokenIds[token] as number)
  invariant(prompt?.kind === 'soft-prompt' && index < prompt.numTokens, `the adapter gives virtual token ${index}`)
  return rowsOf(prompt).subarray(index * spec.hiddenSize, (index + 1) * spec.hiddenSize)
}
