// LOKR (LyCORIS, arXiv:2309.14859): ΔW = alpha / r · kron(w1, w2), each factor stored whole or as a product of two. A product of
// rank ρ is low rank in the Kronecker product, too: kron(a1·b1, a2·b2) = kron(a1, a2) · kron(b1, b2), of rank ρ1·ρ2. Of a whole
// factor one side is the identity. With both factors whole that rank is that of the matrix, and the type is refused.

import type { ModuleInfo } from '../../../model/module-map.ts'
import { type LinearKind, openTargets, QUERY_AND_VALUE } from './linear-kind.ts'
import { readPatterned } from './name-patterns.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { checkRank, readSize } from './rank.ts'

const LOKR: LinearKind = {
  // Which factors are whole shows in the file: decompose_both.
  trainingKeys: [
    'decompose_both',
    'init_weights',
    'module_dropout',
    'rank_dropout',
    'rank_dropout_scale',
    'use_effective_conv2d',
  ],
  defaultTargets: QUERY_AND_VALUE,
  targetedBias: null,
  takesConv1d: false,
}

/** left [rows, rank] · right [rank, columns] */
interface Factor {
  readonly rows: number
  readonly columns: number
  readonly rank: number
  readonly isWhole: boolean
  readonly left: Float32Array
  readonly right: Float32Array
}

export function compileLokr(context: PeftContext): PeftScope {
  const ranksOf = readPatterned(context, 'rank_pattern', readSize(context, 'r'))
  const alphasOf = readPatterned(context, 'alpha_pattern', context.config.number('alpha'))
  const factor = context.config.number('decompose_factor')
  const { modules } = openTargets(context, LOKR)
  const [rankOf, alphaOf] = [ranksOf(modules), alphasOf(modules)]
  for (const module of modules) {
    const rank = checkRank(context, 'rank_pattern', rankOf(module))
    compileModule(context, module, rank, alphaOf(module) / rank, factor)
  }
  return EVERYWHERE
}

function compileModule(context: PeftContext, module: ModuleInfo, rank: number, scale: number, divider: number): void {
  const { path, outFeatures, inFeatures } = module
  const [rows1, rows2] = factorize(outFeatures, divider)
  const [columns1, columns2] = factorize(inFeatures, divider)
  const w1 = readFactor(context, `${path}.lokr_w1`, rows1, columns1, rank)
  const w2 = readFactor(context, `${path}.lokr_w2`, rows2, columns2, rank)
  if (w1.isWhole && w2.isWhole)
    throw context.refuse('peft_type', `LOKR with two whole factors (${path}) is not supported; convert it with a smaller r`)
  context.sites.addLowRank(module, {
    rank: w1.rank * w2.rank,
    scale,
    a: kron(w1.right, w2.right, w1.columns, w2.columns),
    b: kron(w1.left, w2.left, w1.rank, w2.rank),
    biasB: null,
  })
}

function readFactor({ tensors }: PeftContext, key: string, rows: number, columns: number, rank: number): Factor {
  if (!tensors.has(key)) {
    const left = tensors.require(`${key}_a`, [rows, rank]).values
    const right = tensors.require(`${key}_b`, [rank, columns]).values
    return { rows, columns, rank, isWhole: false, left, right }
  }
  const { values } = tensors.require(key, [rows, columns])
  const smaller = Math.min(rows, columns)
  const one = identity(smaller)
  const sides = rows <= columns ? { left: one, right: values } : { left: values, right: one }
  return { rows, columns, rank: smaller, isWhole: true, ...sides }
}

/** Kronecker product of a [_, columnsA] and b [_, columnsB]. */
function kron(a: Float32Array, b: Float32Array, columnsA: number, columnsB: number): Float32Array {
  const [rowsA, rowsB] = [a.length / columnsA, b.length / columnsB]
  const columns = columnsA * columnsB
  const out = new Float32Array(a.length * b.length)
  for (let row = 0; row < rowsA * rowsB; row++) {
    const [fromA, fromB] = [Math.floor(row / rowsB) * columnsA, (row % rowsB) * columnsB]
    for (let column = 0; column < columns; column++) {
      const valueA = a[fromA + Math.floor(column / columnsB)] as number
      out[row * columns + column] = valueA * (b[fromB + (column % columnsB)] as number)
    }
  }
  return out
}

function identity(size: number): Float32Array {
  return Float32Array.from({ length: size * size }, (_, i) => (i % (size + 1) === 0 ? 1 : 0))
}

/** PEFT's split of a dimension in two, the smaller first: by `divider` where that divides it, else the most even one below it. */
function factorize(dimension: number, divider: number): readonly [number, number] {
  if (divider > 0 && dimension % divider === 0) return [divider, dimension / divider]
  const limit = divider === -1 ? dimension : divider
  let best = 1
  for (let candidate = 2; candidate * candidate <= dimension && candidate <= limit; candidate++) {
    if (dimension % candidate === 0) best = candidate
  }
  return [best, dimension / best]
}
