// LOKR (LyCORIS, arXiv:2309.14859): ΔW = alpha / r · kron(w1, w2), each factor stored whole or as a product of two. A product of
// rank ρ is low rank in the Kronecker product, too: kron(a1·b1, a2·b2) = kron(a1, a2) · kron(b1, b2), of rank ρ1·ρ2. Of a whole
// factor one side is the identity. Served is what takes fewer multiplications a token: those ranks, or the two factors as they are.

import type { ModuleInfo } from '../../../model/module-map.ts'
import { type LinearKind, openTargets, QUERY_AND_VALUE } from './linear-kind.ts'
import { product } from './matrix-product.ts'
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

type Matrix = Float32Array | Float64Array

/** left [rows, rank] · right [rank, columns] */
interface Factor {
  readonly columns: number
  readonly rank: number
  readonly left: Float32Array
  readonly right: Float32Array
}

export function compileLokr(context: PeftContext): PeftScope {
  const ranksOf = readPatterned(context, 'rank_pattern', readSize(context, 'r'))
  const alphasOf = readPatterned(context, 'alpha_pattern', context.config.number('alpha'))
  const divider = context.config.number('decompose_factor')
  const { modules } = openTargets(context, LOKR)
  const [rankOf, alphaOf] = [ranksOf(modules), alphasOf(modules)]
  for (const module of modules) {
    const rank = checkRank(context, 'rank_pattern', rankOf(module))
    compileModule(context, module, { rank, scale: alphaOf(module) / rank, divider })
  }
  return EVERYWHERE
}

function compileModule(
  context: PeftContext,
  module: ModuleInfo,
  { rank, scale, divider }: { rank: number; scale: number; divider: number },
): void {
  const { path, outFeatures, inFeatures } = module
  const [rows1, rows2] = factorize(outFeatures, divider)
  const [columns1, columns2] = factorize(inFeatures, divider)
  const w1 = readFactor(context, `${path}.lokr_w1`, rows1, columns1, rank)
  const w2 = readFactor(context, `${path}.lokr_w2`, rows2, columns2, rank)
  // kron(w1, w2) x multiplies every input with a column of w2, and what comes of it with w1.
  if (w1.rank * w2.rank * (outFeatures + inFeatures) > inFeatures * rows2 + outFeatures * columns1) {
    addWholeFactors(context, module, w1, w2, scale)
    return
  }
  context.sites.addLowRank(module, {
    rank: w1.rank * w2.rank,
    scale,
    a: Float32Array.from(kron(w1.right, w2.right, w1.columns, w2.columns)),
    b: Float32Array.from(kron(w1.left, w2.left, w1.rank, w2.rank)),
    biasB: null,
  })
}

function addWholeFactors({ sites }: PeftContext, module: ModuleInfo, w1: Factor, w2: Factor, scale: number): void {
  const { outFeatures, inFeatures } = module
  const [left, right] = [product(w1.left, w1.right, w1.rank), product(w2.left, w2.right, w2.rank)]
  const isAdded = sites.addKron(module, {
    leftShape: [left.length / w1.columns, w1.columns],
    rightShape: [right.length / w2.columns, w2.columns],
    left: Float32Array.from(left),
    right: Float32Array.from(right),
    scale,
  })
  if (isAdded) return
  // A fused module whose projections cut through the blocks.
  const delta = kron(left, right, w1.columns, w2.columns)
  sites.addDense(
    module,
    Float32Array.from({ length: outFeatures * inFeatures }, (_, i) => scale * (delta[i] as number)),
  )
}

function readFactor({ tensors }: PeftContext, key: string, rows: number, columns: number, rank: number): Factor {
  if (tensors.has(`${key}_a`) || tensors.has(`${key}_b`)) {
    const left = tensors.require(`${key}_a`, [rows, rank]).values
    const right = tensors.require(`${key}_b`, [rank, columns]).values
    return { columns, rank, left, right }
  }
  const { values } = tensors.require(key, [rows, columns])
  const smaller = Math.min(rows, columns)
  const one = identity(smaller)
  const sides = rows <= columns ? { left: one, right: values } : { left: values, right: one }
  return { columns, rank: smaller, ...sides }
}

/** Kronecker product of a [_, columnsA] and b [_, columnsB]. */
function kron(a: Matrix, b: Matrix, columnsA: number, columnsB: number): Float64Array {
  const [rowsA, rowsB] = [a.length / columnsA, b.length / columnsB]
  const columns = columnsA * columnsB
  const out = new Float64Array(a.length * b.length)
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
