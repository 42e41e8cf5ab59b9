// FOURIERFT (arXiv:2405.03003): ΔW is the real part of the inverse Fourier transform of a matrix with few entries, whose places
// follow from a seed: ΔW[o, i] = scaling / (out · in) · Σ_j s_j · cos(2π (row_j · o / out + column_j · i / in)).

import type { ModuleInfo } from '../../../model/module-map.ts'
import { inverseTransform } from './inverse-dft.ts'
import { type LinearKind, openTargets, QUERY_AND_VALUE } from './linear-kind.ts'
import { readBarePatterned } from './name-patterns.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { drawPlaces, readPlaceSeed } from './random-places.ts'
import { checkRank, readSize } from './rank.ts'

const FOURIERFT: LinearKind = {
  trainingKeys: ['fan_in_fan_out', 'init_weights'],
  defaultTargets: { ...QUERY_AND_VALUE, gpt2: ['mlp.c_proj'] },
  targetedBias: 'fourier_only',
  takesConv1d: true,
}

export function compileFourierft(context: PeftContext): PeftScope {
  const { config, tensors, refuse, sites } = context
  const countsOf = readBarePatterned(context, 'n_frequency_pattern', readSize(context, 'n_frequency'))
  const scaling = config.number('scaling')
  const seed = readPlaceSeed(context)
  const { modules } = openTargets(context, FOURIERFT)
  const countOf = countsOf(modules)
  for (const module of modules) {
    const { path, outFeatures, inFeatures } = module
    const count = checkRank(context, 'n_frequency_pattern', countOf(module))
    if (count > outFeatures * inFeatures) throw refuse('n_frequency', `${count} are more than ${path} has places`)
    const stored = tensors.leadingSize(`${path}.fourierft_spectrum`)
    if (stored !== null && stored !== count)
      throw refuse('n_frequency', `the config gives ${path} ${count} frequencies, the file has ${stored}`)
    const spectrum = tensors.require(`${path}.fourierft_spectrum`, [count]).values
    const places = drawPlaces(context, seed, outFeatures, inFeatures, count)
    sites.addDense(module, inverseFourier(spectrum, places, module, scaling))
  }
  return EVERYWHERE
}

/** `spectrum` [n] at `places` [n] of [out, in] -> ΔW [out, in]. */
function inverseFourier(
  spectrum: Float32Array,
  places: Float64Array,
  { outFeatures, inFeatures }: Pick<ModuleInfo, 'outFeatures' | 'inFeatures'>,
  scaling: number,
): Float32Array {
  const rows = transformRows(spectrum, places, inFeatures)
  const delta = new Float32Array(outFeatures * inFeatures)
  const factor = scaling / (outFeatures * inFeatures)
  const transform = inverseTransform(outFeatures)
  const column = { re: new Float64Array(outFeatures), im: new Float64Array(outFeatures) }
  for (let i = 0; i < inFeatures; i++) {
    column.re.fill(0)
    column.im.fill(0)
    for (const [row, { re, im }] of rows) {
      column.re[row] = re[i] as number
      column.im[row] = im[i] as number
    }
    transform(column)
    for (let o = 0; o < outFeatures; o++) delta[o * inFeatures + i] = factor * (column.re[o] as number)
  }
  return delta
}

/** Rows with an entry, each transformed along the inputs. */
function transformRows(
  spectrum: Float32Array,
  places: Float64Array,
  inFeatures: number,
): ReadonlyMap<number, { readonly re: Float64Array; readonly im: Float64Array }> {
  const rows = new Map<number, { re: Float64Array; im: Float64Array }>()
  for (const [k, place] of places.entries()) {
    const row = Math.floor(place / inFeatures)
    const entries = rows.get(row) ?? { re: new Float64Array(inFeatures), im: new Float64Array(inFeatures) }
    entries.re[place % inFeatures] = spectrum[k] as number
    rows.set(row, entries)
  }
  const transform = inverseTransform(inFeatures)
  for (const entries of rows.values()) transform(entries)
  return rows
}
