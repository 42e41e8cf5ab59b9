// OFT (arXiv:2306.07280; as PEFT has it since 0.16, arXiv:2506.19847): blocks of the input are rotated, y = W (x R) + b, hence
// W' = W · Rᵀ. At an embedding the output is rotated, E' = E · R, which is folded into its matrix. `coft` keeps R near the identity: Q of
// each block is shrunk to a norm of eps / √blocks where it is larger.

import type { ModuleInfo } from '../../../model/module-map.ts'
import { cayley, cayleySeries, type SeriesEnd } from './cayley.ts'
import { show } from './config-fields.ts'
import { type LinearKind, openTargets, QUERY_AND_VALUE } from './linear-kind.ts'
import { nearestDivisor } from './nearest-divisor.ts'
import { compileOldOft, isOldOft, shrinkTo } from './oft-old.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { readSize } from './rank.ts'

const OFT: LinearKind = {
  // PEFT turns fan_in_fan_out off for all that it wraps here.
  trainingKeys: ['fan_in_fan_out', 'init_weights', 'module_dropout', 'num_cayley_neumann_terms'],
  defaultTargets: QUERY_AND_VALUE,
  targetedBias: 'oft_only',
  takesConv1d: false,
  takesEmbeddings: true,
}

/** Terms of the series. A power of Q each; writers use 5, and a file must not hold the loader for hours. */
const MAXIMUM_TERMS = 64

interface Options {
  /** The size of a block in an input of this width. */
  readonly blockSizeOf: (width: number) => number
  readonly isShared: boolean
  /** Largest norm of Q times the root of the number of blocks; null = unbounded. */
  readonly bound: number | null
  /** R [size, size] of the strict upper triangle of one block. */
  readonly rotation: (skew: Float64Array, size: number) => Float64Array
}

export function compileOft(context: PeftContext): PeftScope {
  if (context.config.value('use_cayley_neumann') === null && isOldOft(context)) return compileOldOft(context)
  const options: Options = {
    rotation: readRotation(context),
    blockSizeOf: readBlockSize(context),
    isShared: context.config.flag('block_share'),
    bound: readBound(context),
  }
  const { sites } = context
  const targets = openTargets(context, OFT)
  for (const module of targets.modules) {
    const { inFeatures: width, kind } = module
    const size = options.blockSizeOf(width)
    const blocks = readBlocks(context, module, options, size)
    if (kind === 'embedding') sites.replaceWeight(module, rotateRows(targets.weightOf(module), blocks, width, size))
    else sites.addRotate(module, { blockSize: size, blocks: Float32Array.from(blocks) })
  }
  return EVERYWHERE
}

function readBound({ config, refuse }: PeftContext): number | null {
  if (!config.flag('coft')) {
    config.ignore(['eps'])
    return null
  }
  const bound = config.number('eps')
  if (bound <= 0) throw refuse('eps', `${show(bound)} leaves no rotation; it must be above 0`)
  return bound
}

function readRotation(context: PeftContext): Options['rotation'] {
  const { config, refuse, warnings } = context
  const key = 'use_cayley_neumann'
  // Files before 0.16 had no such key, and other tensors (oft-old.ts).
  if (config.value(key) === null) throw refuse(key, 'missing; every PEFT since 0.16 stores it')
  if (!config.flag(key)) return cayley
  const terms = readSize(context, 'num_cayley_neumann_terms')
  if (terms > MAXIMUM_TERMS) throw refuse('num_cayley_neumann_terms', `${terms} are more than ${MAXIMUM_TERMS}`)
  const end = readSeriesEnd(context)
  if (end === 'doubled' && terms > 2) {
    warnings.push(
      'peft_version is missing or below 0.18: R is computed as in training; PEFT 0.18 and newer compute it differently',
    )
  }
  return (skew, size) => cayleySeries(skew, size, terms, end)
}

/** PEFT 0.18 changed the series, and began to store its version. */
function readSeriesEnd({ config, refuse }: PeftContext): SeriesEnd {
  const version = config.value('peft_version')
  if (version === null) return 'doubled'
  const match = /^(\d+)\.(\d+)(?:\D|$)/.exec(String(version))
  if (match === null) throw refuse('peft_version', `${show(version)} is not a version, and OFT depends on it`)
  return Number(match[1]) > 0 || Number(match[2]) >= 18 ? 'single' : 'doubled'
}

/** One of `oft_block_size` and `r` (the number of blocks) is set, the other 0; PEFT moves either to a divisor of the width. */
function readBlockSize(context: PeftContext): Options['blockSizeOf'] {
  const { config, refuse } = context
  const isByCount = config.number('oft_block_size') === 0
  if (isByCount) {
    const count = readSize(context, 'r')
    return (width) => width / nearestDivisor(width, count)
  }
  const size = readSize(context, 'oft_block_size')
  if (config.number('r') !== 0) throw refuse('r', 'must be 0 where oft_block_size is set')
  return (width) => nearestDivisor(width, size)
}

/** R of every block, one behind the other: [width / size, size, size], or [1, size, size] where they share it. */
function readBlocks({ tensors }: PeftContext, module: ModuleInfo, options: Options, size: number): Float64Array {
  const name = module.kind === 'embedding' ? 'oft_embedding_R' : 'oft_R'
  const count = options.isShared ? 1 : module.inFeatures / size
  const triangle = (size * (size - 1)) / 2
  const { values } = tensors.require(`${module.path}.${name}.weight`, [count, triangle])
  const blocks = new Float64Array(count * size * size)
  for (let block = 0; block < count; block++) {
    const skew = skewSymmetric(values.subarray(block * triangle, (block + 1) * triangle), size)
    if (options.bound !== null) shrinkTo(skew, options.bound / Math.sqrt(count))
    blocks.set(options.rotation(skew, size), block * size * size)
  }
  return blocks
}

/** Q [size, size] from its strict upper triangle, row by row. */
function skewSymmetric(triangle: Float32Array, size: number): Float64Array {
  const skew = new Float64Array(size * size)
  let next = 0
  for (let row = 0; row < size; row++) {
    for (let column = row + 1; column < size; column++) {
      const value = triangle[next++] as number
      skew[row * size + column] = value
      skew[column * size + row] = -value
    }
  }
  return skew
}

/** weight [rows, width] · blockdiag(R). */
function rotateRows(weight: Float32Array, blocks: Float64Array, width: number, size: number): Float32Array {
  const out = new Float32Array(weight.length)
  for (let from = 0; from < weight.length; from += size) {
    const block = ((from % width) * size) % blocks.length
    for (let k = 0; k < size; k++) {
      let sum = 0
      for (let c = 0; c < size; c++) sum += (weight[from + c] as number) * (blocks[block + c * size + k] as number)
      out[from + k] = sum
    }
  }
  return out
}
