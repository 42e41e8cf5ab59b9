// DELORA (arXiv:2503.18225): ΔW = B · diag(λ / (r · ‖A_i‖ · ‖B_i‖)) · A · diag(w), with w the norms of the base weight's columns as
// they were when training began, stored in the file. The diagonals fold into B and A.

import type { ModuleInfo } from '../../../model/module-map.ts'
import { type LinearKind, openTargets, QUERY_AND_VALUE } from './linear-kind.ts'
import { scaleColumns } from './module-weights.ts'
import { readPatterned } from './name-patterns.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { checkRank, checkStoredRank, readSize } from './rank.ts'

const DELORA: LinearKind = {
  // λ is trained and stored as a tensor; the config's value only starts it.
  trainingKeys: ['delora_lambda', 'init_weights', 'lambda_pattern', 'module_dropout'],
  defaultTargets: QUERY_AND_VALUE,
  targetedBias: 'delora_only',
  takesConv1d: false,
}

/** PEFT divides by no norm below this. */
const MINIMUM_NORM = 1e-4

export function compileDelora(context: PeftContext): PeftScope {
  const ranksOf = readPatterned(context, 'rank_pattern', readSize(context, 'r'))
  const { modules } = openTargets(context, DELORA)
  const rankOf = ranksOf(modules)
  for (const module of modules) compileModule(context, module, checkRank(context, 'rank_pattern', rankOf(module)))
  return EVERYWHERE
}

function compileModule(context: PeftContext, module: ModuleInfo, rank: number): void {
  const { sites, tensors } = context
  const { path, outFeatures, inFeatures } = module
  checkStoredRank(context, `${path}.delora_A`, rank)
  const a = tensors.require(`${path}.delora_A`, [rank, inFeatures]).values
  const b = tensors.require(`${path}.delora_B`, [outFeatures, rank]).values
  const lambda = tensors.require(`${path}.delora_lambda`, [1]).values[0] as number
  const columnNorms = tensors.require(`${path}.delora_w_norm`, [inFeatures]).values
  const factors = Float64Array.from({ length: rank }, (_, k) => {
    const normA = Math.max(norm(a, k * inFeatures, 1, inFeatures), MINIMUM_NORM)
    const normB = Math.max(norm(b, k, rank, outFeatures), MINIMUM_NORM)
    return lambda / rank / (normA * normB)
  })
  sites.addLowRank(module, {
    rank,
    scale: 1,
    a: scaleColumns(a, columnNorms),
    b: scaleColumns(b, factors),
    biasB: null,
  })
}

/** L2 norm of `count` values from `start`, `stride` apart. */
function norm(values: Float32Array, start: number, stride: number, count: number): number {
  let sum = 0
  for (let i = 0; i < count; i++) sum += (values[start + i * stride] as number) ** 2
  return Math.sqrt(sum)
}
