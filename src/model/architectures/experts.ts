// Mixtures of experts. Checkpoints of transformers 4 hold each expert's linears apart; those of transformers 5 may stack
// them: gate_up_proj [experts, 2 * intermediate, hidden], down_proj [experts, hidden, intermediate].

import { LorikeetError } from '../../errors.ts'
import type { MlpSpec } from '../decoder-spec.ts'
import type { ModuleInfo } from '../module-map.ts'
import type { TensorHome } from './architecture.ts'
import { linear } from './module-builders.ts'

export interface ExpertLayout {
  readonly layer: number
  readonly hiddenSize: number
  readonly mlp: MlpSpec & { kind: 'experts' }
  /** Module that holds router and experts, under `model.layers.N.`, and its linears' names. */
  readonly block: string
  readonly names: { readonly gate: string; readonly up: string; readonly down: string }
}

const EXPERT_REFUSAL = 'adapters on the linears of experts and on routers are not served yet'

/** The block's name in transformers 5, whose stacked tensors lie under it. */
const STACKED_BLOCK = 'mlp'

export function expertModules(layout: ExpertLayout): readonly ModuleInfo[] {
  const { layer, hiddenSize, mlp, names } = layout
  const path = `model.layers.${layer}.${layout.block}`
  const options = { layer, refusal: EXPERT_REFUSAL }
  const wide = { out: mlp.intermediateSize, in: hiddenSize }
  const narrow = { out: hiddenSize, in: mlp.intermediateSize }
  const modules = [linear(`${path}.gate`, `layers.${layer}.router`, { out: mlp.numExperts, in: hiddenSize }, options)]
  for (let expert = 0; expert < mlp.numExperts; expert++) {
    const site = `layers.${layer}.experts.${expert}`
    modules.push(
      linear(`${path}.experts.${expert}.${names.gate}`, `${site}.gate`, wide, options),
      linear(`${path}.experts.${expert}.${names.up}`, `${site}.up`, wide, options),
      linear(`${path}.experts.${expert}.${names.down}`, `${site}.down`, narrow, options),
    )
  }
  return modules
}

/** Where the same weights lie in a stacked checkpoint, by module path. */
export function stackedExpertHomes(layout: ExpertLayout): readonly (readonly [string, TensorHome])[] {
  const { layer, hiddenSize, mlp, names } = layout
  const { intermediateSize: wide, numExperts } = mlp
  const path = `model.layers.${layer}.${layout.block}`
  const stack = `model.layers.${layer}.${STACKED_BLOCK}`
  const gateUp = { tensor: `${stack}.experts.gate_up_proj`, shape: [numExperts, 2 * wide, hiddenSize] }
  const down = { tensor: `${stack}.experts.down_proj`, shape: [numExperts, hiddenSize, wide] }
  const homes: [string, TensorHome][] = [
    [`${path}.gate`, { tensor: `${stack}.gate.weight`, shape: [numExperts, hiddenSize], rowStart: 0 }],
  ]
  for (let expert = 0; expert < numExperts; expert++) {
    const linears = `${path}.experts.${expert}`
    homes.push(
      [`${linears}.${names.gate}`, { ...gateUp, rowStart: expert * 2 * wide }],
      [`${linears}.${names.up}`, { ...gateUp, rowStart: expert * 2 * wide + wide }],
      [`${linears}.${names.down}`, { ...down, rowStart: expert * hiddenSize }],
    )
  }
  return homes
}

export function checkExpertCounts(mlp: MlpSpec & { kind: 'experts' }): void {
  if (mlp.numExpertsPerToken <= mlp.numExperts) return
  throw new LorikeetError('MODEL_INVALID', {
    reason: `config.json: num_experts_per_tok (${mlp.numExpertsPerToken}) is above the number of experts (${mlp.numExperts})`,
  })
}
