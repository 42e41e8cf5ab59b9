// BOFT (arXiv:2311.06243): the input is rotated by a product of butterfly factors, and the rows of W are scaled:
// y = s ⊙ (W (x R)) + b. A factor i is P_i · blockdiag(Q) · P_iᵀ with Q the Cayley transform of each block and P_i the permutation
// of its level. Of one factor P is the identity, and the blocks are served as they are; a product of several is folded into the
// weight. PEFT without its CUDA extension reads and writes one factor, whatever boft_n_butterfly_factor says.

import type { ModuleInfo } from '../../../model/module-map.ts'
import { cayley } from './cayley.ts'
import { type LinearKind, type LinearTargets, openTargets, QUERY_AND_VALUE } from './linear-kind.ts'
import { product, productTransposed } from './matrix-product.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { readSize } from './rank.ts'

const BOFT: LinearKind = {
  trainingKeys: ['boft_dropout', 'fan_in_fan_out', 'init_weights'],
  defaultTargets: QUERY_AND_VALUE,
  targetedBias: 'boft_only',
  takesConv1d: false,
}

interface Options {
  readonly blockSizeOf: (module: ModuleInfo) => number
  readonly numFactors: number
}

export function compileBoft(context: PeftContext): PeftScope {
  const options = { blockSizeOf: readBlockSize(context), numFactors: readSize(context, 'boft_n_butterfly_factor') }
  const targets = openTargets(context, BOFT)
  for (const module of targets.modules) compileModule(context, targets, module, options)
  return EVERYWHERE
}

/** One of `boft_block_size` and `boft_block_num` is set, the other 0. */
function readBlockSize(context: PeftContext): Options['blockSizeOf'] {
  const { config, refuse } = context
  const isByCount = config.number('boft_block_size') === 0
  const field = isByCount ? 'boft_block_num' : 'boft_block_size'
  const value = readSize(context, field)
  if (!isByCount && config.number('boft_block_num') !== 0)
    throw refuse('boft_block_num', 'must be 0 where boft_block_size is set')
  return ({ path, inFeatures }) => {
    if (inFeatures % value !== 0) throw refuse(field, `${value} does not divide the ${inFeatures} inputs of ${path}`)
    return isByCount ? inFeatures / value : value
  }
}

function compileModule(context: PeftContext, targets: LinearTargets, module: ModuleInfo, options: Options): void {
  const { tensors, sites } = context
  const { path, outFeatures, inFeatures } = module
  const size = options.blockSizeOf(module)
  const numBlocks = inFeatures / size
  const numFactors = tensors.leadingSize(`${path}.boft_R`) === 1 ? 1 : options.numFactors
  const stored = tensors.require(`${path}.boft_R`, [numFactors, numBlocks, size, size]).values
  const scale = tensors.require(`${path}.boft_s`, [outFeatures, 1]).values
  const blocks = rotations(stored, size)
  if (numFactors === 1) sites.addRotate(module, { blockSize: size, blocks: Float32Array.from(blocks) })
  else {
    checkFactors(context, numFactors, numBlocks, size)
    const rotation = butterflyProduct(blocks, { numFactors, width: inFeatures, size })
    // W (x R) = (W Rᵀ) x for a row vector x.
    sites.replaceWeight(module, Float32Array.from(productTransposed(targets.weightOf(module), rotation, inFeatures)))
  }
  sites.addOutputVector(module, 'factor', scale)
}

/** Q of every block: the Cayley transform of its skew-symmetric part. */
function rotations(stored: Float32Array, size: number): Float64Array {
  const out = new Float64Array(stored.length)
  for (let start = 0; start < stored.length; start += size * size) {
    const skew = new Float64Array(size * size)
    for (let i = 0; i < size; i++) {
      for (let j = 0; j < size; j++) {
        const difference = (stored[start + i * size + j] as number) - (stored[start + j * size + i] as number)
        skew[i * size + j] = difference / 2
      }
    }
    out.set(cayley(skew, size), start)
  }
  return out
}

function checkFactors({ refuse }: PeftContext, numFactors: number, numBlocks: number, size: number): void {
  const field = 'boft_n_butterfly_factor'
  if (size % 2 !== 0) throw refuse(field, `blocks of odd size ${size} cannot be permuted`)
  if (numBlocks % 2 ** (numFactors - 1) !== 0)
    throw refuse(field, `${numBlocks} blocks are no multiple of 2^${numFactors - 1}, which ${numFactors} factors need`)
}

/** R = F_{n-1} · … · F_0, [width, width]. */
function butterflyProduct(
  blocks: Float64Array,
  { numFactors, width, size }: { numFactors: number; width: number; size: number },
): Float64Array {
  const perFactor = width * size
  let rotation: Float64Array | null = null
  for (let level = 0; level < numFactors; level++) {
    const order = butterflyOrder(width, width / size / 2 ** level, size / 2)
    const factor = permutedBlocks(blocks.subarray(level * perFactor, (level + 1) * perFactor), order, size)
    rotation = rotation === null ? factor : product(factor, rotation, width)
  }
  return rotation ?? new Float64Array()
}

/** P · blockdiag(blocks) · Pᵀ, where row i of P picks `order[i]`. */
function permutedBlocks(blocks: Float64Array, order: Int32Array, size: number): Float64Array {
  const width = order.length
  const out = new Float64Array(width * width)
  for (let i = 0; i < width; i++) {
    for (let j = 0; j < width; j++) {
      const [row, column] = [order[i] as number, order[j] as number]
      if (Math.floor(row / size) === Math.floor(column / size))
        out[i * width + j] = blocks[row * size + (column % size)] as number
    }
  }
  return out
}

/** In each of `numGroups` groups: the pieces of `piece` values at even places, then those at odd ones. */
function butterflyOrder(width: number, numGroups: number, piece: number): Int32Array {
  const order = new Int32Array(width)
  const numPieces = width / numGroups / piece
  for (let i = 0; i < width; i++) {
    const group = i - (i % (numPieces * piece))
    const place = Math.floor((i - group) / piece)
    const half = Math.ceil(numPieces / 2)
    const source = place < half ? 2 * place : 2 * (place - half) + 1
    order[i] = group + source * piece + (i % piece)
  }
  return order
}
