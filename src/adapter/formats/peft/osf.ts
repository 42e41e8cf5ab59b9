// OSF (arXiv:2504.07097): the singular components of W beyond the `effective_rank` largest are trained. ΔW = U · diag(S) · V − what those
// components were, which follows from W.

import type { ModuleInfo } from '../../../model/module-map.ts'
import { show } from './config-fields.ts'
import { type LinearKind, type LinearTargets, openTargets } from './linear-kind.ts'
import { addProduct } from './low-rank-or-dense.ts'
import { scaleColumns } from './module-weights.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { matchingKeys } from './python-regex.ts'
import { tailOf } from './weight-tail.ts'

const EVERY_LINEAR = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'down_proj', 'up_proj']

const OSF: LinearKind = {
  // A size by module for distributed training.
  trainingKeys: ['init_weights', 'target_svd_config'],
  defaultTargets: {
    gemma2: EVERY_LINEAR,
    gemma3_text: EVERY_LINEAR,
    llama: EVERY_LINEAR,
    mistral: EVERY_LINEAR,
    mixtral: EVERY_LINEAR,
    qwen2: EVERY_LINEAR,
    qwen3: EVERY_LINEAR,
  },
  targetedBias: null,
  takesConv1d: false,
}

export function compileOsf(context: PeftContext): PeftScope {
  const rank = readRank(context, 'effective_rank', context.config.value('effective_rank'))
  const patterns = context.config.numberMap('rank_pattern')
  const targets = openTargets(context, OSF)
  const paths = targets.modules.map(({ path }) => path)
  const patterned = new Map<string, number>()
  for (const [pattern, value] of patterns) {
    const field = `rank_pattern.${pattern}`
    readRank(context, field, value)
    // The reference searches, it does not match whole names.
    for (const path of matchingKeys(pattern, { prefix: '(?:', suffix: ')' }, paths, field, context.refuse)) {
      if (!patterned.has(path)) patterned.set(path, value)
    }
  }
  for (const module of targets.modules) compileModule(context, targets, module, patterned.get(module.path) ?? rank)
  return EVERYWHERE
}

/** null = half of the smaller side. */
function readRank({ refuse }: PeftContext, field: string, value: unknown): number | null {
  if (value === null) return null
  if (typeof value !== 'number' || !(value > 0)) throw refuse(field, `${show(value)} is neither a rank nor a share of one`)
  return value
}

function compileModule(context: PeftContext, targets: LinearTargets, module: ModuleInfo, rank: number | null): void {
  const { tensors, sites, refuse } = context
  const { path, outFeatures, inFeatures } = module
  const prefix = `${path}.osf_svd_params`
  const size = Math.min(outFeatures, inFeatures)
  const stored = tensors.leadingSize(`${prefix}.S_low`)
  const counts = trainedCounts(size, rank)
  const count = counts.find((candidate) => candidate === stored)
  if (count === undefined && stored !== null)
    throw refuse('effective_rank', `leaves ${path} ${counts[0]} trained components, the file has ${stored}`)
  const trained = count ?? (counts[0] as number)
  const s = tensors.require(`${prefix}.S_low`, [trained]).values
  const u = tensors.require(`${prefix}.U_low`, [outFeatures, trained]).values
  const v = tensors.require(`${prefix}.V_low`, [trained, inFeatures]).values
  const tail = tailOf(targets.weightOf(module), module, trained)
  if (tail === null)
    throw refuse('effective_rank', `the ${trained} smallest singular components of ${path} are not well defined in float32`)
  addProduct(sites, module, {
    rank: 2 * trained,
    a: concatenate(v, tail.a),
    b: besideNegated(scaleColumns(u, s), tail.b, outFeatures),
    scale: 1,
  })
}

/** A float up to 1 is a share, and JSON does not tell 1.0 from 1: both readings. */
function trainedCounts(size: number, rank: number | null): readonly number[] {
  const limit = (kept: number) => size - Math.min(size, kept)
  if (rank === null) return [limit(Math.floor(size / 2))]
  if (rank === 1) return [limit(1), limit(size)]
  return [limit(Math.trunc(rank < 1 ? size * rank : rank))]
}

function concatenate(first: Float32Array, second: Float64Array): Float32Array {
  const out = new Float32Array(first.length + second.length)
  out.set(first)
  out.set(second, first.length)
  return out
}

/** [left | -right], row by row. */
function besideNegated(left: Float32Array, right: Float64Array, rows: number): Float32Array {
  const out = new Float32Array(left.length + right.length)
  const [widthLeft, widthRight] = [left.length / rows, right.length / rows]
  for (let row = 0; row < rows; row++) {
    const start = row * (widthLeft + widthRight)
    out.set(left.subarray(row * widthLeft, (row + 1) * widthLeft), start)
    for (let k = 0; k < widthRight; k++) out[start + widthLeft + k] = -(right[row * widthRight + k] as number)
  }
  return out
}
