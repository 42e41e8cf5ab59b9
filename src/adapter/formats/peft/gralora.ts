// GRALORA (arXiv:2505.20355): k × k blocks of ΔW, each of rank r / k. Input block n yields r values; value j·q + t (q = r / k) goes
// to output block j, whose matrix takes it as row n·q + t. As one low-rank update of rank k·r, index (n, j, t): A is zero outside
// input block n, B outside output block j. `hybrid_r` adds that many ordinary ranks. Scale alpha / (r + hybrid_r).

import type { ModuleInfo } from '../../../model/module-map.ts'
import { type LinearKind, openTargets, QUERY_AND_VALUE } from './linear-kind.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { readSize } from './rank.ts'

const GRALORA: LinearKind = {
  trainingKeys: ['fan_in_fan_out', 'gralora_dropout', 'init_weights'],
  defaultTargets: QUERY_AND_VALUE,
  targetedBias: 'gralora_only',
  takesConv1d: true,
}

interface Shape {
  readonly rank: number
  readonly numBlocks: number
  readonly hybridRank: number
  readonly scale: number
}

export function compileGralora(context: PeftContext): PeftScope {
  const { config, refuse } = context
  const rank = readSize(context, 'r')
  const numBlocks = readSize(context, 'gralora_k')
  const hybridRank = config.number('hybrid_r')
  if (!Number.isInteger(hybridRank) || hybridRank < 0) throw refuse('hybrid_r', `${hybridRank} is not a rank`)
  if (rank % numBlocks !== 0) throw refuse('gralora_k', `r = ${rank} is not divisible by ${numBlocks}`)
  const scale = config.number('alpha') / (rank + hybridRank)
  const { modules } = openTargets(context, GRALORA)
  for (const module of modules) compileModule(context, module, { rank, numBlocks, hybridRank, scale })
  return EVERYWHERE
}

function compileModule({ sites, tensors, refuse }: PeftContext, module: ModuleInfo, shape: Shape): void {
  const { path, outFeatures, inFeatures } = module
  const { rank, numBlocks, hybridRank, scale } = shape
  if (inFeatures % numBlocks !== 0 || outFeatures % numBlocks !== 0)
    throw refuse('gralora_k', `${path} [${outFeatures}, ${inFeatures}] is not divisible by ${numBlocks}`)
  const blockA = tensors.require(`${path}.gralora_A`, [numBlocks, inFeatures / numBlocks, rank]).values
  const blockB = tensors.require(`${path}.gralora_B`, [numBlocks, rank, outFeatures / numBlocks]).values
  const total = numBlocks * rank + hybridRank
  const a = new Float32Array(total * inFeatures)
  const b = new Float32Array(outFeatures * total)
  fillA(a, blockA, inFeatures, shape)
  fillB(b, blockB, outFeatures, total, shape)
  if (hybridRank > 0) {
    a.set(tensors.require(`${path}.gralora_A_general.weight`, [hybridRank, inFeatures]).values, numBlocks * rank * inFeatures)
    const general = tensors.require(`${path}.gralora_B_general.weight`, [outFeatures, hybridRank]).values
    for (let o = 0; o < outFeatures; o++)
      b.set(general.subarray(o * hybridRank, (o + 1) * hybridRank), o * total + numBlocks * rank)
  }
  sites.addLowRank(module, { rank: total, scale, a, b, biasB: null })
}

/** Row n·r + j·q + t holds column j·q + t of input block n. */
function fillA(a: Float32Array, blocks: Float32Array, inFeatures: number, { rank, numBlocks }: Shape): void {
  const width = inFeatures / numBlocks
  for (let input = 0; input < inFeatures; input++) {
    const firstRow = Math.floor(input / width) * rank
    for (let k = 0; k < rank; k++) a[(firstRow + k) * inFeatures + input] = blocks[input * rank + k] as number
  }
}

/** Column n·r + j·q + t holds row n·q + t of output block j. */
function fillB(b: Float32Array, blocks: Float32Array, outFeatures: number, total: number, { rank, numBlocks }: Shape): void {
  const height = outFeatures / numBlocks
  const share = rank / numBlocks
  for (let o = 0; o < outFeatures; o++) {
    const block = Math.floor(o / height)
    for (let row = 0; row < rank; row++) {
      const column = Math.floor(row / share) * rank + block * share + (row % share)
      b[o * total + column] = blocks[(block * rank + row) * height + (o % height)] as number
    }
  }
}
