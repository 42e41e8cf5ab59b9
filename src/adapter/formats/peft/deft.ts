// DEFT (as in PEFT 0.21): a subspace of the outputs is removed from W and filled anew, W' = W + Q · (s · R − Gᵀ · W). `relu`: Q = P and
// G = relu(P); `qr`: Q = G = the orthonormal factor of P, with the signs of a Householder decomposition (LAPACK), which R was
// trained against. `para` (PaRa) removes only: R = 0. Low rank with B = Q and an A that is folded with the base weight.

import type { ModuleInfo } from '../../../model/module-map.ts'
import { type LinearKind, type LinearTargets, openTargets, QUERY_AND_VALUE } from './linear-kind.ts'
import { product } from './matrix-product.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { readSize } from './rank.ts'

const DEFT: LinearKind = {
  trainingKeys: ['deft_dropout', 'fan_in_fan_out', 'init_scale', 'init_weights'],
  defaultTargets: QUERY_AND_VALUE,
  targetedBias: 'deft_only',
  takesConv1d: true,
}

interface Options {
  readonly maxRank: number
  /** null = no scale. */
  readonly alpha: number | null
  readonly method: 'relu' | 'qr'
  readonly isRemovalOnly: boolean
}

export function compileDeft(context: PeftContext): PeftScope {
  const { config } = context
  const options: Options = {
    maxRank: readSize(context, 'r'),
    // PEFT takes 0 for "no scale", too.
    alpha: config.value('alpha') === null ? null : config.number('alpha') || null,
    method: config.oneOf('decomposition_method', ['relu', 'qr'], 'relu'),
    isRemovalOnly: config.flag('para'),
  }
  const targets = openTargets(context, DEFT)
  for (const module of targets.modules) compileModule(context, targets, module, options)
  return EVERYWHERE
}

function compileModule(context: PeftContext, targets: LinearTargets, module: ModuleInfo, options: Options): void {
  const { sites, tensors, refuse } = context
  const { path, outFeatures, inFeatures } = module
  const rank = Math.min(options.maxRank, outFeatures)
  const stored = tensors.shape(`${path}.deft_P`)
  if (stored?.length === 2 && stored[1] !== rank)
    throw refuse('r', `the config gives ${path} rank ${rank}, the file has rank ${stored[1]}`)
  const p = tensors.require(`${path}.deft_P`, [outFeatures, rank]).values
  const filled = options.isRemovalOnly ? null : tensors.require(`${path}.deft_R`, [rank, inFeatures]).values
  const isQr = options.method === 'qr'
  const q = isQr ? orthonormalFactor(p, outFeatures, rank) : Float64Array.from(p)
  const removed = isQr ? q : q.map((value) => Math.max(value, 0))
  const shadow = product(transposed(removed, outFeatures, rank), targets.weightOf(module), outFeatures)
  const scale = options.alpha === null ? 1 : options.alpha / rank
  const a = Float32Array.from(shadow, (value, i) => scale * (filled?.[i] ?? 0) - value)
  sites.addLowRank(module, { rank, scale: 1, a, b: Float32Array.from(q), biasB: null })
}

/**
 * Q [rows, columns] of the thin QR decomposition by Householder reflections, rows >= columns: the diagonal of R has the sign
 * opposite to the element it came from, as LAPACK's `geqrf` leaves it.
 */
export function orthonormalFactor(matrix: Float32Array, rows: number, columns: number): Float64Array {
  const work = Float64Array.from(matrix)
  const reflectors: Float64Array[] = []
  for (let k = 0; k < columns; k++) {
    const v = new Float64Array(rows)
    for (let row = k; row < rows; row++) v[row] = work[row * columns + k] as number
    const tail = v.subarray(k + 1).reduce((sum, value) => sum + value * value, 0)
    const head = v[k] as number
    // Nothing below the diagonal: the reflection is the identity and the sign stays.
    if (tail > 0) v[k] = head + (head < 0 ? -1 : 1) * Math.sqrt(head * head + tail)
    else v.fill(0)
    reflectors.push(v)
    reflect(work, v, columns)
  }
  const q = new Float64Array(rows * columns)
  for (let k = 0; k < columns; k++) q[k * columns + k] = 1
  for (const v of reflectors.reverse()) reflect(q, v, columns)
  return q
}

/** matrix := (I − 2 v vᵀ / vᵀv) · matrix */
function reflect(matrix: Float64Array, v: Float64Array, columns: number): void {
  const square = v.reduce((sum, value) => sum + value * value, 0)
  if (square === 0) return
  for (let column = 0; column < columns; column++) {
    let sum = 0
    for (let row = 0; row < v.length; row++) sum += (v[row] as number) * (matrix[row * columns + column] as number)
    const share = (2 * sum) / square
    for (let row = 0; row < v.length; row++) {
      const at = row * columns + column
      matrix[at] = (matrix[at] as number) - share * (v[row] as number)
    }
  }
}

/** [rows, columns] to [columns, rows]. */
function transposed(values: Float64Array, rows: number, columns: number): Float64Array {
  const out = new Float64Array(values.length)
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) out[column * rows + row] = values[row * columns + column] as number
  }
  return out
}
