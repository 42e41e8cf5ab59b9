// Weights of HF modules in canonical form, from the base model or from the adapter file.

import { at } from '../../../core/invariant.ts'
import type { ModelSource } from '../../../model/model-source.ts'
import type { ModuleInfo, ModulePart } from '../../../model/module-map.ts'
import type { TensorSet } from './tensor-set.ts'

/** Base weight of one part, [rows, in] (a norm's: [rows]). The head of a tied model is its embedding. */
export function readPart(model: ModelSource, part: ModulePart): Float32Array {
  return model.read(part.site === 'lmHead' && model.spec.tiedHead ? 'embed' : part.site)
}

/** Base weight of a whole module, its fused parts stacked: [out, in]. */
export function readWeight(model: ModelSource, module: ModuleInfo): Float32Array {
  if (module.parts.length === 1) return readPart(model, at(module.parts, 0))
  const width = module.kind === 'norm' ? 1 : module.inFeatures
  const weight = new Float32Array(module.outFeatures * width)
  for (const part of module.parts) weight.set(readPart(model, part), part.rowStart * width)
  return weight
}

/** A full weight saved under `key`, brought to [out, in]; GPT-2's Conv1D saves [in, out]. */
export function requireWeight(tensors: TensorSet, module: ModuleInfo, key: string): Float32Array {
  const { outFeatures, inFeatures } = module
  if (module.kind === 'norm') return tensors.require(key, [outFeatures]).values
  if (!module.isConv1d) return tensors.require(key, [outFeatures, inFeatures]).values
  return transpose(tensors.require(key, [inFeatures, outFeatures]).values, inFeatures, outFeatures)
}

/** [rows, columns] to [columns, rows]. */
export function transpose(values: Float32Array, rows: number, columns: number): Float32Array {
  const out = new Float32Array(values.length)
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) out[column * rows + row] = values[row * columns + column] as number
  }
  return out
}

/** b [rows, n] · diag(factors), in a new array. */
export function scaleColumns(b: Float32Array, factors: Float32Array | Float64Array): Float32Array {
  const width = factors.length
  return b.map((value, i) => value * (factors[i % width] as number))
}

export function areEqual(a: Float32Array, b: Float32Array): boolean {
  if (a.length !== b.length) return false
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false
  return true
}

export function isAllZero(values: Float32Array): boolean {
  for (let i = 0; i < values.length; i++) if (values[i] !== 0) return false
  return true
}

export function findBySite(model: ModelSource, site: string): ModuleInfo | null {
  for (const module of model.modules.values()) if (module.parts.some((part) => part.site === site)) return module
  return null
}
