// TINYLORA (arXiv:2602.04118): ΔW = B · (Σ_i v_i P_i) · A, with A and B the leading singular factors of the base weight and P random,
// both stored, and v trained and shared by groups of modules. The middle matrix folds into B.

import type { ModuleInfo } from '../../../model/module-map.ts'
import { type LinearKind, openTargets, QUERY_AND_VALUE } from './linear-kind.ts'
import { product } from './matrix-product.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { readSize } from './rank.ts'

const TINYLORA: LinearKind = {
  trainingKeys: ['fan_in_fan_out', 'init_v_bound', 'init_weights', 'projection_seed', 'tinylora_dropout'],
  defaultTargets: QUERY_AND_VALUE,
  targetedBias: 'tinylora_only',
  takesConv1d: true,
}

export function compileTinylora(context: PeftContext): PeftScope {
  const { config, tensors, refuse } = context
  const rank = readSize(context, 'r')
  const numVectors = readSize(context, 'u')
  const tying = config.number('weight_tying')
  if (tying < 0 || tying > 1) throw refuse('weight_tying', `${tying} is not between 0 and 1`)
  if (config.value('save_projection') !== null && !config.flag('save_projection'))
    throw refuse('save_projection', 'false leaves the projections out of the file; save the adapter with them')
  const { modules } = openTargets(context, TINYLORA)
  const groups = groupsOf(modules, tying)
  const vectors = new Map([...new Set(groups.values())].map((group) => [group, readVector(group)]))
  function readVector(group: number): Float32Array {
    return tensors.require(`base_model.tinylora_v.${group}`, [numVectors]).values
  }
  for (const module of modules) compileModule(context, module, rank, vectors.get(groups.get(module) ?? 0) ?? new Float32Array())
  return EVERYWHERE
}

/** PEFT's grouping: equal runs of modules in traversal order, the last group taking the rest. */
function groupsOf(modules: readonly ModuleInfo[], tying: number): ReadonlyMap<ModuleInfo, number> {
  const numGroups = Math.max(1, roundHalfToEven(modules.length * (1 - tying)))
  const groupSize = Math.max(1, Math.floor(modules.length / numGroups))
  return new Map(modules.map((module, i) => [module, Math.min(Math.floor(i / groupSize), numGroups - 1)]))
}

function compileModule({ sites, tensors }: PeftContext, module: ModuleInfo, maxRank: number, vector: Float32Array): void {
  const { path, outFeatures, inFeatures } = module
  const rank = Math.min(maxRank, outFeatures, inFeatures)
  const a = tensors.require(`${path}.tinylora_A`, [rank, inFeatures]).values
  const b = tensors.require(`${path}.tinylora_B`, [outFeatures, rank]).values
  const projections = tensors.require(`${path}.tinylora_P`, [vector.length, rank, rank]).values
  const middle = product(vector, projections, vector.length)
  sites.addLowRank(module, { rank, scale: 1, a, b: Float32Array.from(product(b, middle, rank)), biasB: null })
}

/** Python's `round`. */
function roundHalfToEven(value: number): number {
  const floor = Math.floor(value)
  if (value - floor !== 0.5) return Math.round(value)
  return floor % 2 === 0 ? floor : floor + 1
}
