// SHIRA (arXiv:2406.13175): single entries of W are trained. The file holds where they are (row, column) and what is added.

import type { ModuleInfo } from '../../../model/module-map.ts'
import { type LinearKind, openTargets, QUERY_AND_VALUE } from './linear-kind.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { readSize } from './rank.ts'
import { addEntries } from './sparse-entries.ts'

const SHIRA: LinearKind = {
  // How the places were chosen does not matter once they are stored.
  trainingKeys: ['fan_in_fan_out', 'init_weights', 'mask_type', 'random_seed'],
  defaultTargets: QUERY_AND_VALUE,
  targetedBias: null,
  takesConv1d: false,
}

export function compileShira(context: PeftContext): PeftScope {
  const rank = readSize(context, 'r')
  for (const module of openTargets(context, SHIRA).modules) compileModule(context, module, rank)
  return EVERYWHERE
}

function compileModule({ tensors, sites, refuse }: PeftContext, module: ModuleInfo, rank: number): void {
  const { path, outFeatures, inFeatures } = module
  const count = rank * (outFeatures + inFeatures)
  const stored = tensors.leadingSize(`${path}.shira_weight`)
  if (stored !== null && stored !== count) throw refuse('r', `gives ${path} ${count} entries, the file has ${stored}`)
  const { values } = tensors.require(`${path}.shira_weight`, [count])
  const indices = tensors.requireIntegers(`${path}.shira_indices`, [2, count])
  const [rows, columns] = [indices.subarray(0, count), indices.subarray(count)]
  const isInside = rows.every((row) => row >= 0 && row < outFeatures) && columns.every((at) => at >= 0 && at < inFeatures)
  if (!isInside) throw refuse(`${path}.shira_indices`, `names entries outside of the weight [${outFeatures}, ${inFeatures}]`)
  addEntries(sites, module, { rows, columns, values })
}
