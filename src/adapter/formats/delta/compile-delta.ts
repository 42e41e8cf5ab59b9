// The delta format (docs/adapter-format.md): differences of a tuned checkpoint to its base, by the parameter names of HF transformers.
//
//   NAME.delta                     [out, in]            all of it
//   NAME.rows, NAME.delta          [n], [n, in]         whole rows
//   NAME.indices, NAME.values      [n], [n]             single entries, row-major
//
// Every selective method comes to this: diff pruning, BitFit, FishMask, LT-SFT, Child-tuning, FAR, pruning masks.

import type { ModelSource } from '../../../model/model-source.ts'
import type { ModuleInfo } from '../../../model/module-map.ts'
import { plus } from '../../arithmetic/element-wise.ts'
import type { CompiledSites } from '../compiled-sites.ts'
import { show } from '../peft/config-fields.ts'
import { findBySite, readWeight } from '../peft/module-weights.ts'
import type { Refuse } from '../peft/refuse.ts'
import { type TensorNaming, TensorSet } from '../peft/tensor-set.ts'
import { SiteBuilder } from '../site-builder.ts'

/** A delta directory, its JSON read. */
export interface DeltaDirectory {
  readonly format: 'delta'
  readonly header: Readonly<Record<string, unknown>>
  readonly weightsPath: string
}

/** Of the format; a file of another one is refused. */
export const DELTA_VERSION = 1

/** A difference in one of the three forms, [out, in]; `rowIds` null = every row, `indices` are row-major and ascend. */
export type Difference =
  | { readonly form: 'dense'; readonly delta: Float32Array; readonly rowIds: Int32Array | null }
  | { readonly form: 'sparse'; readonly indices: Int32Array; readonly values: Float32Array }

const OWN_NAMES: TensorNaming = { keyOf: (name) => name, nameOf: (key) => key }

/** Throws ADAPTER_REFUSED naming the key or tensor at fault, or SAFETENSORS_INVALID. */
export function compileDelta({ header, weightsPath }: DeltaDirectory, model: ModelSource, refuse: Refuse): CompiledSites {
  const { version, kind = 'delta', base_model_name_or_path: _, ...rest } = header
  if (version !== DELTA_VERSION)
    throw refuse('version', `${show(version)} is not ${DELTA_VERSION}, the version this server reads`)
  if (typeof kind !== 'string' || kind === '') throw refuse('kind', `${show(kind)} is not a name`)
  const [unknown] = Object.keys(rest)
  if (unknown !== undefined) throw refuse(unknown, 'is a key this server does not know')
  const tensors = new TensorSet(weightsPath, refuse, OWN_NAMES)
  const sites = new SiteBuilder()
  for (const module of model.modules.values()) {
    const weight = readDifference(tensors, module, refuse)
    const bias = tensors.take(`${module.path}.bias.delta`, [module.outFeatures])?.values ?? null
    if ((weight !== null || bias !== null) && module.refusal !== null) throw refuse(module.path, module.refusal)
    if (weight !== null) addWeightDifference(model, sites, module, weight)
    if (bias !== null) sites.addOutputVector(module, 'bias', plus(baseBias(model, module), bias))
  }
  tensors.finish()
  return { kind, sites: sites.build(), invocationTokenIds: null, virtualTokens: null, warnings: [] }
}

function readDifference(tensors: TensorSet, module: ModuleInfo, refuse: Refuse): Difference | null {
  const name = `${module.path}.weight`
  const { outFeatures, inFeatures } = module
  const width = module.kind === 'norm' ? 1 : inFeatures
  const numEntries = tensors.leadingSize(`${name}.indices`)
  if (numEntries !== null) {
    const indices = tensors.requireIntegers(`${name}.indices`, [numEntries])
    const values = tensors.require(`${name}.values`, [numEntries]).values
    checkAscending(indices, outFeatures * width, `${name}.indices`, refuse)
    return { form: 'sparse', indices, values }
  }
  const numRows = tensors.leadingSize(`${name}.rows`)
  if (numRows !== null) {
    const rowIds = tensors.requireIntegers(`${name}.rows`, [numRows])
    checkAscending(rowIds, outFeatures, `${name}.rows`, refuse)
    return { form: 'dense', rowIds, delta: tensors.require(`${name}.delta`, [numRows, width]).values }
  }
  const shape = module.kind === 'norm' ? [outFeatures] : [outFeatures, inFeatures]
  const delta = tensors.take(`${name}.delta`, shape)?.values
  return delta === undefined ? null : { form: 'dense', rowIds: null, delta }
}

export function addWeightDifference(model: ModelSource, sites: SiteBuilder, module: ModuleInfo, difference: Difference): void {
  if (module.kind === 'norm') sites.replaceWeight(module, applied(model, module, difference))
  else if (module.kind === 'embedding') addEmbedding(model, sites, module, difference)
  else if (difference.form === 'dense') sites.addDense(module, difference.delta, difference.rowIds)
  else sites.addSparse(module, toRows(difference, module.outFeatures, module.inFeatures))
}

/** The rows that differ become the adapter's own; on a tied model they are the head's too. */
function addEmbedding(model: ModelSource, sites: SiteBuilder, module: ModuleInfo, difference: Difference): void {
  const width = module.inFeatures
  const weight = applied(model, module, difference)
  const touched = touchedRows(difference, module.outFeatures, width)
  const rows = new Float32Array(touched.length * width)
  touched.forEach((row, i) => {
    rows.set(weight.subarray(row * width, (row + 1) * width), i * width)
  })
  const isTied = module.parts.some(({ site }) => site === 'embed') && model.spec.tiedHead
  const head = isTied ? findBySite(model, 'lmHead') : null
  for (const target of head === null ? [module] : [module, head]) {
    if (touched.length === module.outFeatures) sites.replaceWeight(target, weight)
    else sites.addRows(target, { rowIds: touched, rows })
  }
}

function touchedRows(difference: Difference, numRows: number, width: number): Int32Array {
  if (difference.form === 'sparse') {
    return Int32Array.from(new Set(Array.from(difference.indices, (index) => Math.floor(index / width))))
  }
  return difference.rowIds ?? Int32Array.from({ length: numRows }, (_, row) => row)
}

/** Base weight plus the difference, in a fresh array. */
function applied(model: ModelSource, module: ModuleInfo, difference: Difference): Float32Array {
  const weight = readWeight(model, module).slice()
  const width = module.kind === 'norm' ? 1 : module.inFeatures
  if (difference.form === 'sparse') {
    difference.indices.forEach((index, i) => {
      weight[index] = (weight[index] as number) + (difference.values[i] as number)
    })
    return weight
  }
  const { delta, rowIds } = difference
  for (let i = 0; i < delta.length; i++) {
    const row = Math.floor(i / width)
    const at = (rowIds === null ? row : (rowIds[row] as number)) * width + (i % width)
    weight[at] = (weight[at] as number) + (delta[i] as number)
  }
  return weight
}

function toRows({ indices, values }: Difference & { form: 'sparse' }, numRows: number, width: number) {
  const rowStarts = new Int32Array(numRows + 1)
  for (const index of indices) {
    const next = Math.floor(index / width) + 1
    rowStarts[next] = (rowStarts[next] as number) + 1
  }
  for (let row = 0; row < numRows; row++) rowStarts[row + 1] = (rowStarts[row + 1] as number) + (rowStarts[row] as number)
  return { rowStarts, columns: indices.map((index) => index % width), values }
}

function checkAscending(ids: Int32Array, limit: number, field: string, refuse: Refuse): void {
  ids.forEach((id, i) => {
    const isRight = id >= 0 && id < limit && (i === 0 || id > (ids[i - 1] as number))
    if (!isRight) throw refuse(field, `entry ${i} is ${id}; entries ascend from 0 to ${limit - 1}, each once`)
  })
}

export function baseBias(model: ModelSource, module: ModuleInfo): Float32Array {
  const bias = new Float32Array(module.outFeatures)
  if (!module.hasBias) return bias
  for (const { site, rowStart } of module.parts) bias.set(model.read(`${site}.bias`), rowStart)
  return bias
}
