// MISS (arXiv:2409.15371, once called Bone): the input is cut into blocks of r, the blocks are summed, and y += (Σ x_block) · D. As
// low rank: A[i, j] = 1 where j mod r = i, and B = Dᵀ. `init_weights` names the variant: "mini" tiles D [r, mini_r] along the
// outputs; "bat" multiplies D with blocks of the base weight, ΔW[a, i, b, k] = Σ_j W[a, i, b, j] · D[a, j, k] + D[a, i, k], which has
// full rank, so the weight is replaced.

import type { ModuleInfo } from '../../../model/module-map.ts'
import { show } from './config-fields.ts'
import { type LinearKind, type LinearTargets, openTargets, QUERY_AND_VALUE } from './linear-kind.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { checkStoredRank, readSize } from './rank.ts'

const MISS: LinearKind = {
  trainingKeys: ['miss_dropout'],
  defaultTargets: QUERY_AND_VALUE,
  targetedBias: 'miss_only',
  takesConv1d: false,
}

interface Variant {
  readonly name: 'plain' | 'mini' | 'bat'
  readonly rank: number
  readonly miniRank: number
  /** Name of the block's tensor. */
  readonly tensor: string
}

export function compileMiss(context: PeftContext): PeftScope {
  return compile(context, MISS, 'miss_block')
}

/** BONE: the name up to PEFT 0.17, with the same arithmetic; it had no "mini". */
export function compileBone(context: PeftContext): PeftScope {
  return compile(context, { ...MISS, targetedBias: 'bone_only', trainingKeys: ['bone_dropout'] }, 'bone_block')
}

function compile(context: PeftContext, kind: LinearKind, tensor: string): PeftScope {
  const name = readVariant(context)
  if (name === 'mini' && kind !== MISS) throw context.refuse('init_weights', 'mini is no variant of BONE')
  const variant: Variant = {
    name,
    tensor,
    rank: readSize(context, 'r'),
    miniRank: name === 'mini' ? readSize(context, 'mini_r') : 1,
  }
  // Read by "mini" alone.
  context.config.ignore(['mini_r'])
  const targets = openTargets(context, kind)
  const sums = new Map<number, Float32Array>()
  for (const module of targets.modules) {
    if (name === 'bat') compileBat(context, targets, module, variant)
    else compileLowRank(context, module, variant, sums)
  }
  return EVERYWHERE
}

/** `sums` holds the A of each input width; modules share it. */
function compileLowRank(context: PeftContext, module: ModuleInfo, variant: Variant, sums: Map<number, Float32Array>): void {
  const { path, outFeatures, inFeatures } = module
  const { name, rank, miniRank, tensor } = variant
  const width = name === 'mini' ? miniRank : outFeatures
  if (outFeatures % width !== 0)
    throw context.refuse('mini_r', `${path} has ${outFeatures} outputs, not a multiple of ${width}`)
  checkStoredRank(context, `${path}.${tensor}`, rank)
  const block = context.tensors.require(`${path}.${tensor}`, [rank, width]).values
  const a = sums.get(inFeatures) ?? blockSum(rank, inFeatures)
  sums.set(inFeatures, a)
  const b = new Float32Array(outFeatures * rank)
  for (let o = 0; o < outFeatures; o++) {
    for (let k = 0; k < rank; k++) b[o * rank + k] = block[k * width + (o % width)] as number
  }
  context.sites.addLowRank(module, { rank, scale: 1, a, b, biasB: null })
}

function compileBat(context: PeftContext, targets: LinearTargets, module: ModuleInfo, { rank, tensor }: Variant): void {
  const { path, outFeatures, inFeatures } = module
  if (outFeatures % rank !== 0 || inFeatures % rank !== 0)
    throw context.refuse('r', `${path} [${outFeatures}, ${inFeatures}] does not divide into blocks of ${rank}`)
  const blocks = context.tensors.require(`${path}.${tensor}`, [outFeatures / rank, rank, rank]).values
  const weight = targets.weightOf(module)
  const replaced = new Float32Array(weight.length)
  for (let o = 0; o < outFeatures; o++) {
    const block = blocks.subarray(Math.floor(o / rank) * rank * rank)
    for (let input = 0; input < inFeatures; input++) {
      const column = input % rank
      const from = o * inFeatures + input - column
      let sum = (weight[from + column] as number) + (block[(o % rank) * rank + column] as number)
      for (let j = 0; j < rank; j++) sum += (weight[from + j] as number) * (block[j * rank + column] as number)
      replaced[from + column] = sum
    }
  }
  context.sites.replaceWeight(module, replaced)
}

/** Sums the blocks of an input: [rank, inFeatures] of zeros and ones. */
function blockSum(rank: number, inFeatures: number): Float32Array {
  const a = new Float32Array(rank * inFeatures)
  for (let input = 0; input < inFeatures; input++) a[(input % rank) * inFeatures + input] = 1
  return a
}

function readVariant({ config, refuse }: PeftContext): Variant['name'] {
  const value = config.value('init_weights')
  if (value === null || typeof value === 'boolean') return 'plain'
  if (value === 'mini' || value === 'bat') return value
  throw refuse('init_weights', `${show(value)} is not one of true, false, mini, bat`)
}
