// RANDLORA (arXiv:2502.00987): ΔW is a sum of products of random bases, which all modules share, scaled by two trained tables. With
// `min` and `max` the smaller and the larger side of the weight and n bases of rank r:
// X[k·n + j] = λ[k, j] · A[k] ⊙ γ[j], Y[:, j·r + k] = B[:, j, k], and alpha / r · Y · X, transposed where in > out. The flattenings of X
// and Y run in different orders in the reference, and so they do here.

import type { ModuleInfo } from '../../../model/module-map.ts'
import { type LinearKind, openTargets, QUERY_AND_VALUE } from './linear-kind.ts'
import { addProduct } from './low-rank-or-dense.ts'
import { areEqual, transpose } from './module-weights.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { checkStoredRank, readSize } from './rank.ts'

const RANDLORA: LinearKind = {
  // Bases come from the file, so how they were drawn does not matter.
  trainingKeys: ['fan_in_fan_out', 'init_weights', 'projection_prng_key', 'randlora_dropout', 'sparse', 'very_sparse'],
  defaultTargets: QUERY_AND_VALUE,
  targetedBias: 'randlora_only',
  takesConv1d: true,
}

/** What the modules share. */
interface Bases {
  readonly rank: number
  readonly maxSide: number
  readonly minSide: number
  readonly a: Float32Array // [rank, 1, minSide]
  readonly b: Float32Array // [maxSide, ceil(minSide / rank), rank]
}

export function compileRandlora(context: PeftContext): PeftScope {
  const { config, refuse } = context
  const rank = readSize(context, 'r')
  const scale = config.number('randlora_alpha') / rank
  if (config.value('save_projection') !== null && !config.flag('save_projection')) {
    throw refuse(
      'save_projection',
      'false: the bases cannot be drawn again, as their precision was that of the training device',
    )
  }
  const { modules } = openTargets(context, RANDLORA)
  const bases = readBases(context, modules, rank)
  for (const module of modules) compileModule(context, module, bases, scale)
  return EVERYWHERE
}

/** The sides of the bases are the largest among the targeted modules: the larger and the smaller of both maxima. */
function readBases(context: PeftContext, modules: readonly ModuleInfo[], rank: number): Bases {
  checkStoredRank(context, 'base_model.randlora_A', rank)
  const maxOut = Math.max(...modules.map(({ outFeatures }) => outFeatures))
  const maxIn = Math.max(...modules.map(({ inFeatures }) => inFeatures))
  const [maxSide, minSide] = [Math.max(maxOut, maxIn), Math.min(maxOut, maxIn)]
  const shapes = { A: [rank, 1, minSide], B: [maxSide, Math.ceil(minSide / rank), rank] }
  const shared = { A: readShared(context, modules, 'A', shapes.A), B: readShared(context, modules, 'B', shapes.B) }
  return { rank, maxSide, minSide, a: shared.A, b: shared.B }
}

/** PEFT 0.21 stores a copy of the bases with every module. */
function readShared(
  context: PeftContext,
  modules: readonly ModuleInfo[],
  name: 'A' | 'B',
  shape: readonly number[],
): Float32Array {
  const { tensors, refuse } = context
  const shared = tensors.require(`base_model.randlora_${name}`, shape)
  for (const { path } of modules) {
    const copy = tensors.take(`${path}.randlora_${name}`, shape)
    if (copy !== null && !areEqual(copy.values, shared.values))
      throw refuse(copy.key, `differs from ${shared.key}, and all modules share it`)
  }
  return shared.values
}

function compileModule({ tensors, sites }: PeftContext, module: ModuleInfo, bases: Bases, scale: number): void {
  const { path, outFeatures, inFeatures } = module
  const { rank } = bases
  const [min, max] = [Math.min(outFeatures, inFeatures), Math.max(outFeatures, inFeatures)]
  const numBases = Math.ceil(min / rank)
  const lambda = tensors.require(`${path}.randlora_lambda`, [rank, numBases]).values
  const gamma = tensors.require(`${path}.randlora_gamma`, [numBases, min]).values
  const total = rank * numBases
  const x = new Float32Array(total * min)
  for (let row = 0; row < total; row++) {
    const [k, base] = [Math.floor(row / numBases), row % numBases]
    for (let i = 0; i < min; i++) {
      x[row * min + i] =
        (lambda[row] as number) * (bases.a[k * bases.minSide + i] as number) * (gamma[base * min + i] as number)
    }
  }
  const y = new Float32Array(max * total)
  const width = Math.ceil(bases.minSide / rank) * rank
  for (let row = 0; row < max; row++) y.set(bases.b.subarray(row * width, row * width + total), row * total)
  if (inFeatures === min) addProduct(sites, module, { rank: total, a: x, b: y, scale })
  else addProduct(sites, module, { rank: total, a: transpose(y, max, total), b: transpose(x, total, min), scale })
}
