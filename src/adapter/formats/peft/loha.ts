// LOHA (arXiv:2108.06098, LyCORIS arXiv:2309.14859): ΔW = alpha / r · (w1a · w1b) ⊙ (w2a · w2b). An element-wise product of two
// rank-r matrices has rank r²: B[:, i·r + j] = w1a[:, i] ⊙ w2a[:, j] and A[i·r + j, :] = w1b[i, :] ⊙ w2b[j, :]. Where r² ranks cost
// more than the matrix itself, the module's weight is replaced by W + ΔW.

import type { ModuleInfo } from '../../../model/module-map.ts'
import { type LinearKind, type LinearTargets, openTargets, QUERY_AND_VALUE } from './linear-kind.ts'
import { product } from './matrix-product.ts'
import { readPatterned } from './name-patterns.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { checkRank, readSize } from './rank.ts'

const LOHA: LinearKind = {
  // Of convolutions only: use_effective_conv2d.
  trainingKeys: ['init_weights', 'module_dropout', 'rank_dropout', 'use_effective_conv2d'],
  defaultTargets: QUERY_AND_VALUE,
  targetedBias: null,
  takesConv1d: false,
}

/** The two factor pairs of one module, each pair [out, r] and [r, in]. */
interface Factors {
  readonly rank: number
  readonly scale: number
  readonly w1a: Float32Array
  readonly w1b: Float32Array
  readonly w2a: Float32Array
  readonly w2b: Float32Array
}

export function compileLoha(context: PeftContext): PeftScope {
  const ranksOf = readPatterned(context, 'rank_pattern', readSize(context, 'r'))
  const alphasOf = readPatterned(context, 'alpha_pattern', context.config.number('alpha'))
  const targets = openTargets(context, LOHA)
  const rankOf = ranksOf(targets.modules)
  const alphaOf = alphasOf(targets.modules)
  for (const module of targets.modules) {
    const rank = checkRank(context, 'rank_pattern', rankOf(module))
    compileModule(context, targets, module, readFactors(context, module, rank, alphaOf(module) / rank))
  }
  return EVERYWHERE
}

function readFactors({ tensors, refuse }: PeftContext, module: ModuleInfo, rank: number, scale: number): Factors {
  const { path, outFeatures, inFeatures } = module
  const stored = tensors.leadingSize(`${path}.hada_w1_b`)
  if (stored !== null && stored !== rank)
    throw refuse('r', `the config gives ${path} rank ${rank}, the file has rank ${stored}`)
  return {
    rank,
    scale,
    w1a: tensors.require(`${path}.hada_w1_a`, [outFeatures, rank]).values,
    w1b: tensors.require(`${path}.hada_w1_b`, [rank, inFeatures]).values,
    w2a: tensors.require(`${path}.hada_w2_a`, [outFeatures, rank]).values,
    w2b: tensors.require(`${path}.hada_w2_b`, [rank, inFeatures]).values,
  }
}

function compileModule({ sites }: PeftContext, targets: LinearTargets, module: ModuleInfo, factors: Factors): void {
  const { outFeatures, inFeatures } = module
  const rank = factors.rank ** 2
  if (rank * (outFeatures + inFeatures) > outFeatures * inFeatures) {
    sites.replaceWeight(module, denseWeight(targets.weightOf(module), factors))
    return
  }
  const a = new Float32Array(rank * inFeatures)
  const b = new Float32Array(outFeatures * rank)
  for (let i = 0; i < factors.rank; i++) {
    for (let j = 0; j < factors.rank; j++) {
      const k = i * factors.rank + j
      for (let n = 0; n < inFeatures; n++)
        a[k * inFeatures + n] = (factors.w1b[i * inFeatures + n] as number) * (factors.w2b[j * inFeatures + n] as number)
      for (let o = 0; o < outFeatures; o++)
        b[o * rank + k] = (factors.w1a[o * factors.rank + i] as number) * (factors.w2a[o * factors.rank + j] as number)
    }
  }
  sites.addLowRank(module, { rank, scale: factors.scale, a, b, biasB: null })
}

function denseWeight(weight: Float32Array, { rank, scale, w1a, w1b, w2a, w2b }: Factors): Float32Array {
  const first = product(w1a, w1b, rank)
  const second = product(w2a, w2b, rank)
  return weight.map((value, i) => value + scale * (first[i] as number) * (second[i] as number))
}
