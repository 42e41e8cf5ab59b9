// HIRA (Hadamard high-rank adaptation): ΔW = W ⊙ (B A). Its rank is that of W, so it is served dense; at an embedding the matrix
// is replaced.

import type { ModuleInfo } from '../../../model/module-map.ts'
import { type LinearKind, type LinearTargets, openTargets, QUERY_AND_VALUE } from './linear-kind.ts'
import { product } from './matrix-product.ts'
import { readPatterned } from './name-patterns.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { checkRank, checkStoredRank, readSize } from './rank.ts'

const HIRA: LinearKind = {
  trainingKeys: ['fan_in_fan_out', 'hira_dropout', 'init_weights'],
  defaultTargets: QUERY_AND_VALUE,
  targetedBias: null,
  takesConv1d: true,
  takesEmbeddings: true,
}

export function compileHira(context: PeftContext): PeftScope {
  const rank = readSize(context, 'r')
  const ranksOf = readPatterned(context, 'rank_pattern', rank)
  const targets = openTargets(context, HIRA)
  const rankOf = ranksOf(targets.modules)
  for (const module of targets.modules) {
    // PEFT 0.21 reads rank_pattern and gives every module `r`. No scale depends on the rank, so the file may say which it is.
    const isPlain = tensorRank(context, module) === rank
    compileModule(context, targets, module, isPlain ? rank : checkRank(context, 'rank_pattern', rankOf(module)))
  }
  return EVERYWHERE
}

function tensorRank({ tensors }: PeftContext, { path, kind }: ModuleInfo): number | null {
  return tensors.leadingSize(`${path}.${kind === 'embedding' ? 'hira_embedding_A' : 'hira_A'}`)
}

function compileModule(context: PeftContext, targets: LinearTargets, module: ModuleInfo, rank: number): void {
  const { tensors, sites, model } = context
  const { path, outFeatures, inFeatures, kind } = module
  const weight = targets.weightOf(module)
  if (kind === 'embedding') {
    checkStoredRank(context, `${path}.hira_embedding_A`, rank)
    // Of an embedding, "in" is the vocabulary: W is [vocab, hidden], B A its transpose.
    const a = tensors.require(`${path}.hira_embedding_A`, [rank, outFeatures]).values
    const b = tensors.require(`${path}.hira_embedding_B`, [inFeatures, rank]).values
    const factor = product(b, a, rank)
    // PEFT adds the update to what the embedding module gives, which is scaled on Gemma; the update is not.
    const replaced = weight.map((value, i) => {
      const [token, column] = [Math.floor(i / inFeatures), i % inFeatures]
      return value * (1 + (factor[column * outFeatures + token] as number) / model.spec.embedScale)
    })
    sites.replaceWeight(module, replaced)
    return
  }
  checkStoredRank(context, `${path}.hira_A`, rank)
  const a = tensors.require(`${path}.hira_A`, [rank, inFeatures]).values
  const b = tensors.require(`${path}.hira_B`, [outFeatures, rank]).values
  const factor = product(b, a, rank)
  sites.addDense(
    module,
    weight.map((value, i) => value * (factor[i] as number)),
  )
}
