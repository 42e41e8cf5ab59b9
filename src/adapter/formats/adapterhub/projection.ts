// The two linears of a bottleneck: plain, or a sum of Kronecker products (PHM layers of Compacter, arXiv:2106.04647), expanded here:
//
//   H = Σ_i rule_i ⊗ W_i   [in, out],   W_i = left_i · right_i,   y = x H + b

import { product } from '../peft/matrix-product.ts'
import { transpose } from '../peft/module-weights.ts'
import type { HubContext } from './hub-context.ts'

export interface Projection {
  readonly weight: Float32Array // [out, in]
  readonly bias: Float32Array | null // [out]
}

export interface Projections {
  /** The linear whose tensors lie under `path`; `position` names it among shared ones. */
  read(path: string, position: 'down' | 'up'): Projection
}

export function openProjections(context: HubContext): Projections {
  const { config } = context
  const isPhm = config.flag('phm_layer')
  const phm = {
    dim: config.value('phm_dim'),
    rank: config.value('phm_rank'),
    hasBias: config.flag('phm_bias'),
    sharesRule: config.flag('shared_phm_rule'),
    factorsRule: config.flag('factorized_phm_rule'),
    sharesWeight: config.flag('shared_W_phm'),
    factorsWeight: config.flag('factorized_phm_W'),
  }
  if (!isPhm) return { read: (path) => readLinear(context, path) }
  const dim = sizeOf(context, 'phm_dim', phm.dim)
  const rank = sizeOf(context, 'phm_rank', phm.rank)
  const shared = new Map<string, Float32Array>()
  return { read: (path, position) => readPhm(context, { ...phm, dim, rank }, shared, path, position) }
}

interface PhmConfig {
  readonly dim: number
  readonly rank: number
  readonly hasBias: boolean
  readonly sharesRule: boolean
  readonly factorsRule: boolean
  readonly sharesWeight: boolean
  readonly factorsWeight: boolean
}

function readLinear({ tensors, model, refuse }: HubContext, path: string): Projection {
  const key = `${path}.weight`
  const shape = tensors.shape(key)
  const [out, width] = shape ?? []
  if (out === undefined || width === undefined) throw refuse(key, 'missing from the file, or no matrix')
  if (out !== model.spec.hiddenSize && width !== model.spec.hiddenSize) {
    throw refuse(key, `has shape [${shape?.join(', ')}], and this model is ${model.spec.hiddenSize} wide`)
  }
  return { weight: tensors.require(key, [out, width]).values, bias: tensors.require(`${path}.bias`, [out]).values }
}

/** Tensors all layers share are read once and kept in `shared`. */
function readPhm(
  { tensors, model, refuse }: HubContext,
  phm: PhmConfig,
  shared: Map<string, Float32Array>,
  path: string,
  position: 'down' | 'up',
): Projection {
  const { dim, rank } = phm
  const width = model.spec.hiddenSize
  const readShared = (key: string, shape: readonly number[]): Float32Array => {
    const values = shared.get(key) ?? tensors.require(key, shape).values
    shared.set(key, values)
    return values
  }
  const weightPath = phm.sharesWeight ? `model.shared_parameters.W_${position}` : `${path}.W`
  const rulePath = phm.sharesRule ? 'model.shared_parameters.phm_rule' : `${path}.phm_rule`
  const lastKey = phm.factorsWeight ? `${weightPath}_right` : weightPath
  const bottleneck = tensors.shape(position === 'down' ? lastKey : phm.factorsWeight ? `${weightPath}_left` : weightPath)
  const perAxis = bottleneck?.[position === 'down' ? 2 : 1]
  if (perAxis === undefined || width % dim !== 0) throw refuse(lastKey, `does not fit phm_dim ${dim} and a model ${width} wide`)
  const [inPerAxis, outPerAxis] = position === 'down' ? [width / dim, perAxis] : [perAxis, width / dim]
  const weights = phm.factorsWeight
    ? batchProduct(
        readShared(`${weightPath}_left`, [dim, inPerAxis, rank]),
        readShared(`${weightPath}_right`, [dim, rank, outPerAxis]),
        dim,
        rank,
      )
    : readShared(weightPath, [dim, inPerAxis, outPerAxis])
  const rules = phm.factorsRule
    ? batchProduct(readShared(`${rulePath}_left`, [dim, dim, 1]), readShared(`${rulePath}_right`, [dim, 1, dim]), dim, 1)
    : readShared(rulePath, [dim, dim, dim])
  const [numIn, numOut] = [dim * inPerAxis, dim * outPerAxis]
  const summed = sumOfKronecker(rules, weights, dim, inPerAxis, outPerAxis)
  const bias = phm.hasBias ? tensors.require(`${path}.b`, [numOut]).values : null
  return { weight: transpose(Float32Array.from(summed), numIn, numOut), bias }
}

/** a_i · b_i for each of `count` stacked matrices. */
function batchProduct(a: Float32Array, b: Float32Array, count: number, inner: number): Float64Array {
  const [aSize, bSize] = [a.length / count, b.length / count]
  const parts = Array.from({ length: count }, (_, i) =>
    product(a.subarray(i * aSize, (i + 1) * aSize), b.subarray(i * bSize, (i + 1) * bSize), inner),
  )
  const out = new Float64Array(parts.reduce((sum, { length }) => sum + length, 0))
  parts.forEach((part, i) => {
    out.set(part, i * part.length)
  })
  return out
}

/** Σ_i rule_i ⊗ w_i for rules [n, n, n] and w [n, p, q]: [n·p, n·q]. */
function sumOfKronecker(
  rules: Float32Array | Float64Array,
  weights: Float32Array | Float64Array,
  n: number,
  p: number,
  q: number,
): Float64Array {
  const out = new Float64Array(n * p * n * q)
  for (let i = 0; i < n; i++) {
    for (let row = 0; row < n * p; row++) {
      for (let column = 0; column < n * q; column++) {
        const rule = rules[(i * n + Math.floor(row / p)) * n + Math.floor(column / q)] as number
        const weight = weights[(i * p + (row % p)) * q + (column % q)] as number
        const at = row * n * q + column
        out[at] = (out[at] as number) + rule * weight
      }
    }
  }
  return out
}

function sizeOf({ refuse }: HubContext, key: string, value: unknown): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 1) throw refuse(key, `${String(value)} is not a size`)
  return value
}
