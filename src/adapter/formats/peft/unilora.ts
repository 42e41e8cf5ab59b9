// UNILORA (arXiv:2506.00799): every entry of A and B is an entry of one trained vector, picked by a stored index, times a stored scale.

import type { ModuleInfo } from '../../../model/module-map.ts'
import { type LinearKind, openTargets, QUERY_AND_VALUE } from './linear-kind.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { readSize } from './rank.ts'

const UNILORA: LinearKind = {
  trainingKeys: ['fan_in_fan_out', 'init_theta_d_bound', 'init_weights', 'proj_seed', 'unilora_dropout'],
  defaultTargets: QUERY_AND_VALUE,
  targetedBias: 'unilora_only',
  takesConv1d: true,
}

export function compileUnilora(context: PeftContext): PeftScope {
  const { config, tensors, refuse } = context
  const rank = readSize(context, 'r')
  const length = readSize(context, 'theta_d_length')
  if (!config.flag('save_indices'))
    throw refuse(
      'save_indices',
      'false: the indices cannot be drawn again (a NumPy stream); save the adapter with save_indices',
    )
  const { modules } = openTargets(context, UNILORA)
  const theta = tensors.require('base_model.unilora_theta_d', [length]).values
  for (const module of modules) compileModule(context, module, rank, theta)
  return EVERYWHERE
}

function compileModule(context: PeftContext, module: ModuleInfo, rank: number, theta: Float32Array): void {
  const { path, outFeatures, inFeatures } = module
  const { tensors, sites, refuse } = context
  const stored = tensors.leadingSize(`${path}.unilora_indices_A`)
  if (stored !== null && stored !== rank)
    throw refuse('r', `the config gives ${path} rank ${rank}, the file has rank ${stored}`)
  const read = (name: 'A' | 'B', shape: readonly number[]): Float32Array => {
    const indices = tensors.requireIntegers(`${path}.unilora_indices_${name}`, shape)
    const scales = tensors.require(`${path}.unilora_scales_${name}`, shape).values
    if (!indices.every((index) => index >= 0 && index < theta.length))
      throw refuse(`${path}.unilora_indices_${name}`, `points outside of the ${theta.length} trained values`)
    return scales.map((scale, i) => scale * (theta[indices[i] as number] as number))
  }
  const a = read('A', [rank, inFeatures])
  const b = read('B', [outFeatures, rank])
  sites.addLowRank(module, { rank, scale: 1, a, b, biasB: null })
}
