// SUPERTUNING (arXiv:2607.09287): the entries of W of largest magnitude are trained; the file holds their flat positions and what is
// added. With `r` an ordinary low-rank update of scale lora_alpha / r stands beside them.

import type { ModuleInfo } from '../../../model/module-map.ts'
import { show } from './config-fields.ts'
import { type LinearKind, openTargets, QUERY_AND_VALUE } from './linear-kind.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { checkStoredRank, readSize } from './rank.ts'
import { addEntries } from './sparse-entries.ts'

const SUPERTUNING: LinearKind = {
  trainingKeys: ['init_weights', 'lora_dropout', 'select_top'],
  defaultTargets: QUERY_AND_VALUE,
  targetedBias: null,
  takesConv1d: false,
}

interface Options {
  readonly sparsity: number
  /** null = no low-rank update. */
  readonly lora: { readonly rank: number; readonly scale: number } | null
}

export function compileSupertuning(context: PeftContext): PeftScope {
  const { config, refuse } = context
  const sparsity = config.number('sparsity')
  if (sparsity < 0 || sparsity >= 1) throw refuse('sparsity', `${show(sparsity)} is not a share from 0 to below 1`)
  if (config.value('save_precomputed_indices') !== null && !config.flag('save_precomputed_indices')) {
    throw refuse('save_precomputed_indices', 'false: the file does not say which entries it holds; save it with the indices')
  }
  const options = { sparsity, lora: readLora(context) }
  for (const module of openTargets(context, SUPERTUNING).modules) compileModule(context, module, options)
  return EVERYWHERE
}

function readLora(context: PeftContext): Options['lora'] {
  const { config, refuse } = context
  if (config.value('r') === null) {
    if (config.value('lora_alpha') !== null) throw refuse('lora_alpha', 'has no meaning without r')
    return null
  }
  const rank = readSize(context, 'r')
  return { rank, scale: config.number('lora_alpha') / rank }
}

function compileModule(context: PeftContext, module: ModuleInfo, { sparsity, lora }: Options): void {
  const { tensors, sites, refuse } = context
  const { path, outFeatures, inFeatures } = module
  const count = Math.trunc(outFeatures * inFeatures * (1 - sparsity))
  const stored = tensors.leadingSize(`${path}.supertuning_values`)
  if (stored !== null && stored !== count) throw refuse('sparsity', `leaves ${path} ${count} entries, the file has ${stored}`)
  const { values } = tensors.require(`${path}.supertuning_values`, [count])
  const places = tensors.requireIntegers(`${path}.supertuning_indices`, [count])
  if (!places.every((place) => place >= 0 && place < outFeatures * inFeatures))
    throw refuse(`${path}.supertuning_indices`, `names entries outside of the weight [${outFeatures}, ${inFeatures}]`)
  const rows = places.map((place) => Math.floor(place / inFeatures))
  const columns = places.map((place) => place % inFeatures)
  addEntries(sites, module, { rows, columns, values })
  if (lora === null) return
  checkStoredRank(context, `${path}.supertuning_lora_A.weight`, lora.rank)
  const a = tensors.require(`${path}.supertuning_lora_A.weight`, [lora.rank, inFeatures]).values
  const b = tensors.require(`${path}.supertuning_lora_B.weight`, [outFeatures, lora.rank]).values
  sites.addLowRank(module, { ...lora, a, b, biasB: null })
}
