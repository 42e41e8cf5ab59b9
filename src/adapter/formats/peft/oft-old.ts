// OFT as PEFT had it before 0.16: blocks are stored whole (`oft_r`) and each is the Cayley transform of its skew-symmetric part.
//   up to 0.13: the output is rotated before the bias, y = (W x) R + b; R may be cut at its lower right. Folded into the weight.
//   0.14, 0.15: the input is rotated and the rows of W are scaled (`oft_s`): y = s ⊙ (W (x R)) + b.
// `coft` shrinks a block to a norm of eps · size² / √blocks, where it is larger, before its skew-symmetric part is taken.

import type { ModuleInfo } from '../../../model/module-map.ts'
import { cayley } from './cayley.ts'
import { show } from './config-fields.ts'
import { type LinearKind, type LinearTargets, openTargets, QUERY_AND_VALUE } from './linear-kind.ts'
import { readPatterned } from './name-patterns.ts'
import { nearestDivisor } from './nearest-divisor.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { checkRank, readSize } from './rank.ts'

const OLD_OFT: LinearKind = {
  trainingKeys: ['alpha_pattern', 'fan_in_fan_out', 'init_weights', 'module_dropout'],
  defaultTargets: QUERY_AND_VALUE,
  targetedBias: 'oft_only',
  takesConv1d: false,
}

interface Options {
  readonly isShared: boolean
  /** null = unconstrained. */
  readonly eps: number | null
}

/** Whether a file without `use_cayley_neumann` is of these formats. */
export function isOldOft({ tensors }: PeftContext): boolean {
  return tensors.hasEnding('.oft_r')
}

export function compileOldOft(context: PeftContext): PeftScope {
  return context.tensors.hasEnding('.oft_s') ? compileInputRotation(context) : compileOutputRotation(context)
}

function readOptions({ config, refuse }: PeftContext): Options {
  const isShared = config.flag('block_share')
  if (config.flag('coft')) {
    const eps = config.number('eps')
    if (eps <= 0) throw refuse('eps', `${show(eps)} leaves no rotation; it must be above 0`)
    return { isShared, eps }
  }
  config.ignore(['eps'])
  return { isShared, eps: null }
}

function compileOutputRotation(context: PeftContext): PeftScope {
  const options = readOptions(context)
  const countsOf = readPatterned(context, 'rank_pattern', readSize(context, 'r'))
  const targets = openTargets(context, OLD_OFT)
  const countOf = countsOf(targets.modules)
  for (const module of targets.modules) {
    const { outFeatures, inFeatures } = module
    const count = checkRank(context, 'rank_pattern', countOf(module))
    const size = Math.ceil(outFeatures / count)
    const bound = options.eps === null ? null : options.eps * size * size
    const blocks = readBlocks(context, module, { count: options.isShared ? 1 : count, size, bound })
    const weight = rotateOutputs(targets.weightOf(module), blocks, { rows: outFeatures, columns: inFeatures, size })
    context.sites.replaceWeight(module, weight)
  }
  return EVERYWHERE
}

function compileInputRotation(context: PeftContext): PeftScope {
  const { config, tensors, sites, refuse } = context
  const options = readOptions(context)
  const isBySize = config.number('r') === 0
  const wanted = readSize(context, isBySize ? 'oft_block_size' : 'r')
  if (!isBySize && config.value('oft_block_size') !== null && config.number('oft_block_size') !== 0)
    throw refuse('oft_block_size', 'must be 0 where r is set')
  const targets: LinearTargets = openTargets(context, OLD_OFT)
  for (const module of targets.modules) {
    const { path, outFeatures, inFeatures } = module
    const near = nearestDivisor(inFeatures, wanted)
    const [count, size] = isBySize ? [inFeatures / near, near] : [near, inFeatures / near]
    const bound = options.eps === null ? null : options.eps * Math.ceil(outFeatures / count) ** 2
    const blocks = readBlocks(context, module, { count: options.isShared ? 1 : count, size, bound })
    sites.addRotate(module, { blockSize: size, blocks: Float32Array.from(blocks) })
    sites.addOutputVector(module, 'factor', tensors.require(`${path}.oft_s`, [outFeatures, 1]).values)
  }
  return EVERYWHERE
}

/** R of each stored block, [count, size, size]. */
function readBlocks(
  { tensors }: PeftContext,
  { path }: ModuleInfo,
  { count, size, bound }: { count: number; size: number; bound: number | null },
): Float64Array {
  const stored = tensors.require(`${path}.oft_r`, [count, size, size]).values
  const out = new Float64Array(stored.length)
  for (let start = 0; start < stored.length; start += size * size) {
    const block = Float64Array.from(stored.subarray(start, start + size * size))
    if (bound !== null) shrinkTo(block, bound / Math.sqrt(count))
    const skew = block.map((value, i) => (value - (block[(i % size) * size + Math.floor(i / size)] as number)) / 2)
    out.set(cayley(skew, size), start)
  }
  return out
}

/** To a Frobenius norm of `bound`, where it is larger. */
export function shrinkTo(block: Float64Array, bound: number): void {
  const norm = Math.sqrt(block.reduce((sum, value) => sum + value * value, 0))
  if (norm <= bound) return
  for (let i = 0; i < block.length; i++) block[i] = ((block[i] as number) * bound) / norm
}

/** Rᵀ · weight, R block-diagonal and cut to [rows, rows]. */
function rotateOutputs(
  weight: Float32Array,
  blocks: Float64Array,
  { rows, columns, size }: { rows: number; columns: number; size: number },
): Float32Array {
  const out = new Float64Array(weight.length)
  for (let row = 0; row < rows; row++) {
    const first = row - (row % size)
    const block = (first * size) % blocks.length
    for (let k = first; k < Math.min(rows, first + size); k++) {
      const factor = blocks[block + (k - first) * size + (row - first)] as number
      for (let i = 0; i < columns; i++) {
        out[row * columns + i] = (out[row * columns + i] as number) + factor * (weight[k * columns + i] as number)
      }
    }
  }
  return Float32Array.from(out)
}
