// WAVEFT (arXiv:2505.12532): few wavelet coefficients of ΔW are trained, at places that follow from a seed. Served are the Haar wavelet
// (db1) and coefficients used as they are (`use_idwt` false); longer wavelets depend on filter tables and on how edges are padded.

import type { ModuleInfo } from '../../../model/module-map.ts'
import { show } from './config-fields.ts'
import { type LinearKind, openTargets, QUERY_AND_VALUE } from './linear-kind.ts'
import { readPatterned } from './name-patterns.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { drawPlaces, readPlaceSeed } from './random-places.ts'
import { checkRank, readSize } from './rank.ts'
import { addEntries } from './sparse-entries.ts'

const WAVEFT: LinearKind = {
  trainingKeys: ['fan_in_fan_out', 'init_weights'],
  defaultTargets: { ...QUERY_AND_VALUE, gpt2: ['mlp.c_proj'] },
  targetedBias: 'waveft_only',
  takesConv1d: true,
}

interface Coefficients {
  readonly values: Float32Array
  readonly places: Float64Array
}

export function compileWaveft(context: PeftContext): PeftScope {
  const { config, tensors, refuse, sites } = context
  const isTransformed = readTransform(context)
  const countsOf = readCounts(context)
  const scaling = config.number('scaling')
  const seed = readPlaceSeed(context)
  const { modules } = openTargets(context, WAVEFT)
  const countOf = countsOf(modules)
  for (const module of modules) {
    const { path, outFeatures, inFeatures } = module
    const count = checkRank(context, 'n_frequency', countOf(module))
    if (count > outFeatures * inFeatures) throw refuse('n_frequency', `${count} are more than ${path} has places`)
    const stored = tensors.leadingSize(`${path}.waveft_spectrum`)
    if (stored !== null && stored !== count)
      throw refuse('n_frequency', `the config gives ${path} ${count} coefficients, the file has ${stored}`)
    const { values } = tensors.require(`${path}.waveft_spectrum`, [count])
    const coefficients = {
      values: values.map((value) => value * scaling),
      places: drawPlaces(context, seed, outFeatures, inFeatures, count),
    }
    if (isTransformed) sites.addDense(module, inverseHaar(coefficients, module))
    else addEntries(sites, module, entriesOf(coefficients, inFeatures))
  }
  return EVERYWHERE
}

function readTransform({ config, refuse }: PeftContext): boolean {
  const isTransformed = config.value('use_idwt') === null || config.flag('use_idwt')
  const family = config.value('wavelet_family') ?? 'db1'
  if (isTransformed && family !== 'db1')
    throw refuse('wavelet_family', `${show(family)} is not supported; only db1 (Haar) is served`)
  return isTransformed
}

/** Coefficients of each module. `proportional_parameters` shares their sum out by size. */
function readCounts(context: PeftContext): (modules: readonly ModuleInfo[]) => (module: ModuleInfo) => number {
  const count = readSize(context, 'n_frequency')
  const patterned = readPatterned(context, 'n_frequency_pattern', count)
  if (!context.config.flag('proportional_parameters')) return patterned
  return (modules) => {
    const total = modules.reduce((sum, { outFeatures, inFeatures }) => sum + outFeatures * inFeatures, 0)
    return ({ outFeatures, inFeatures }) =>
      Math.max(1, roundHalfEven(((outFeatures * inFeatures) / total) * (count * modules.length)))
  }
}

/** Python's `round`. */
function roundHalfEven(value: number): number {
  const below = Math.floor(value)
  if (value - below !== 0.5) return Math.round(value)
  return below % 2 === 0 ? below : below + 1
}

function entriesOf({ values, places }: Coefficients, inFeatures: number) {
  return {
    values,
    rows: places.map((place) => Math.floor(place / inFeatures)),
    columns: places.map((place) => place % inFeatures),
  }
}

/**
 * ΔW [out, in] from its four bands, each a quadrant of the coefficients: every 2 x 2 block is (a ± h ± v ± d) / 2. Sides of odd
 * length count as one longer.
 */
function inverseHaar(
  { values, places }: Coefficients,
  { outFeatures, inFeatures }: Pick<ModuleInfo, 'outFeatures' | 'inFeatures'>,
): Float32Array {
  const [halfRows, halfColumns] = [Math.ceil(outFeatures / 2), Math.ceil(inFeatures / 2)]
  const delta = new Float32Array(outFeatures * inFeatures)
  for (const [k, place] of places.entries()) {
    const [row, column] = [Math.floor(place / inFeatures), place % inFeatures]
    const [isLower, isRight] = [row >= halfRows, column >= halfColumns]
    const share = (values[k] as number) / 2
    for (const below of [0, 1]) {
      for (const right of [0, 1]) {
        const [o, i] = [2 * (row % halfRows) + below, 2 * (column % halfColumns) + right]
        if (o >= outFeatures || i >= inFeatures) continue
        const isNegative = (isLower && right === 1) !== (isRight && below === 1)
        delta[o * inFeatures + i] = (delta[o * inFeatures + i] as number) + (isNegative ? -share : share)
      }
    }
  }
  return delta
}
