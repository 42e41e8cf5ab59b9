// FROD: a basis V [in, in], shared by the modules of one name, splits every base weight into W = U · diag(λ) · Vᵀ with unit columns in U.
// Trained are λ and few entries S beside the diagonal: W' = U · (S + diag(λ')) · Vᵀ.

import type { ModuleInfo } from '../../../model/module-map.ts'
import { type LinearKind, type LinearTargets, openTargets, QUERY_AND_VALUE } from './linear-kind.ts'
import { inverse } from './matrix-inverse.ts'
import { product, productTransposed } from './matrix-product.ts'
import { transpose } from './module-weights.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'

const FROD: LinearKind = {
  trainingKeys: [
    'fan_in_fan_out',
    'frod_dropout',
    'init_weights',
    'progressbar',
    'projection_prng_key',
    'regularization_alpha',
    'runtime_offload_base_weight',
  ],
  defaultTargets: QUERY_AND_VALUE,
  targetedBias: 'frod_only',
  takesConv1d: true,
}

/** Columns shorter than this have no direction in the reference. */
const MINIMUM_LENGTH = 1e-12

/** What modules of one name share. */
interface Basis {
  readonly v: Float32Array // [in, in]
  readonly vInverse: Float64Array // [in, in]
  readonly rows: Int32Array
  readonly columns: Int32Array
}

export function compileFrod(context: PeftContext): PeftScope {
  const { config, refuse } = context
  if (config.value('save_projection') !== null && !config.flag('save_projection'))
    throw refuse('save_projection', 'false: the basis depends on the signs of a decomposition; save the adapter with it')
  const rate = config.number('sparse_rate')
  const targets = openTargets(context, FROD)
  const bases = new Map<string, Basis>()
  for (const module of targets.modules) {
    const category = categoryOf(module.path)
    const basis = bases.get(category) ?? readBasis(context, category, module.inFeatures, rate)
    bases.set(category, basis)
    compileModule(context, targets, module, basis)
  }
  return EVERYWHERE
}

/** As PEFT groups them: the last two parts of the path, `self_attn_q_proj`. */
function categoryOf(path: string): string {
  const [last = '', before] = path.split('.').reverse()
  return before === undefined || /^\d+$/.test(before) ? last : `${before}_${last}`
}

function readBasis(context: PeftContext, category: string, width: number, rate: number): Basis {
  const { tensors, refuse } = context
  const key = (name: string) => `base_model.frod_${name}.${category}`
  const count = rate > 0 ? Math.max(1, Math.min(Math.trunc(width * width * rate), width * width - width)) : 0
  const stored = tensors.shape(key('s_indices'))?.[1]
  if (stored !== undefined && stored !== count)
    throw refuse('sparse_rate', `gives ${category} ${count} entries, the file has ${stored}`)
  const v = tensors.require(key('V'), [width, width]).values
  const indices = tensors.requireIntegers(key('s_indices'), [2, count])
  const size = tensors.requireIntegers(key('s_size'), [2])
  if (size.some((side) => side !== width)) throw refuse(key('s_size'), `is not ${width} x ${width}`)
  if (!indices.every((index) => index >= 0 && index < width))
    throw refuse(key('s_indices'), `points outside of ${width} x ${width}`)
  const vInverse = inverse(v, width)
  if (vInverse === null) throw refuse(key('V'), 'is singular')
  return { v, vInverse, rows: indices.subarray(0, count), columns: indices.subarray(count) }
}

function compileModule(context: PeftContext, targets: LinearTargets, module: ModuleInfo, basis: Basis): void {
  const { tensors, sites } = context
  const { path, outFeatures, inFeatures: width } = module
  const lambda = tensors.require(`${path}.frod_lambda_l`, [width]).values
  const entries = tensors.require(`${path}.frod_lambda_s_values`, [basis.rows.length]).values
  const weight = targets.weightOf(module)
  const u = unitColumns(productTransposed(weight, basis.vInverse, width), width)
  const core = new Float64Array(width * width)
  for (const [k, value] of entries.entries()) {
    const at = (basis.rows[k] as number) * width + (basis.columns[k] as number)
    core[at] = (core[at] as number) + value
  }
  for (let i = 0; i < width; i++) core[i * (width + 1)] = (core[i * (width + 1)] as number) + (lambda[i] as number)
  // (S + diag(λ)) Vᵀ first: S has few entries, and `product` skips zeros.
  const right = product(core, transpose(basis.v, width, width), width)
  const made = product(u, right, width)
  const delta = new Float32Array(outFeatures * width)
  for (let i = 0; i < delta.length; i++) delta[i] = (made[i] as number) - (weight[i] as number)
  sites.addDense(module, delta)
}

/** [rows, columns], each column scaled to length 1. */
function unitColumns(matrix: Float64Array, columns: number): Float64Array {
  const squares = new Float64Array(columns)
  for (const [i, value] of matrix.entries()) squares[i % columns] = (squares[i % columns] as number) + value * value
  return matrix.map((value, i) => {
    const length = Math.sqrt(squares[i % columns] as number)
    return length > MINIMUM_LENGTH ? value / length : 0
  })
}
