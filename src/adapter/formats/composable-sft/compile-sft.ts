// Sparse fine-tunings of composable-sft (LT-SFT, arXiv:2110.07560): `pytorch_diff.bin`, a dictionary of two dictionaries by parameter name.
//
//   diffs    size, index_steps, values    added to the parameter; positions are sums of the steps, the FIRST dimension running fastest
//   abs      tensor                       takes the parameter's place

import type { ModelSource } from '../../../model/model-source.ts'
import type { ModuleInfo } from '../../../model/module-map.ts'
import { findNonFinite, readTensorF32, type SafetensorsEntry } from '../../../model/safetensors.ts'
import { openTorchDictionary, type TorchDictionary, type TorchNode } from '../../../model/torch-file.ts'
import { plus } from '../../arithmetic/element-wise.ts'
import type { CompiledSites } from '../compiled-sites.ts'
import { addWeightDifference, baseBias } from '../delta/compile-delta.ts'
import { findBySite, transpose } from '../peft/module-weights.ts'
import type { Refuse } from '../peft/refuse.ts'
import { SiteBuilder } from '../site-builder.ts'

export const SFT_FILE = 'pytorch_diff.bin'

/** A directory of composable-sft (https://github.com/cambridgeltl/composable-sft). */
export interface SftDirectory {
  readonly format: 'composable-sft'
  readonly weightsPath: string
}

interface SftContext {
  readonly model: ModelSource
  readonly sites: SiteBuilder
  readonly refuse: Refuse
}

/** A parameter as the base model has it. */
interface Parameter {
  readonly name: string
  readonly module: ModuleInfo
  readonly isBias: boolean
  /** As HF transformers stores it. */
  readonly shape: readonly number[]
}

/** Throws ADAPTER_REFUSED naming the parameter at fault, or TORCH_FILE_INVALID. */
export function compileSft({ weightsPath }: SftDirectory, model: ModelSource, refuse: Refuse): CompiledSites {
  const { entries } = openTorchDictionary(weightsPath)
  const unknown = [...entries.keys()].find((key) => key !== 'diffs' && key !== 'abs')
  if (unknown !== undefined) throw refuse(unknown, 'is a key this server does not know')
  const context: SftContext = { model, sites: new SiteBuilder(), refuse }
  const diffs = dictionary(entries.get('diffs') ?? null, 'diffs', refuse)
  const absolutes = dictionary(entries.get('abs') ?? null, 'abs', refuse)
  if (diffs.size + absolutes.size === 0) throw refuse(SFT_FILE, 'the file changes no parameter')
  for (const [name, encoded] of diffs) {
    if (absolutes.has(name)) throw refuse(name, 'is in diffs and in abs')
    addDiff(context, parameterOf(context, name), dictionary(encoded, name, refuse))
  }
  for (const [name, value] of absolutes) addAbsolute(context, parameterOf(context, name), value)
  return { kind: 'composable-sft', sites: context.sites.build(), invocationTokenIds: null, virtualTokens: null, warnings: [] }
}

function parameterOf({ model, refuse }: SftContext, name: string): Parameter {
  const dot = name.lastIndexOf('.')
  const module = model.modules.get(name.slice(0, dot))
  const part = name.slice(dot + 1)
  const isBias = part === 'bias'
  if (module === undefined || !(part === 'weight' || (isBias && module.hasBias))) {
    throw refuse(name, 'is no parameter of this model; is it an adapter of another base model?')
  }
  if (module.refusal !== null) throw refuse(name, module.refusal)
  const { outFeatures, inFeatures } = module
  if (isBias || module.kind === 'norm') return { name, module, isBias, shape: [outFeatures] }
  return { name, module, isBias, shape: module.isConv1d ? [inFeatures, outFeatures] : [outFeatures, inFeatures] }
}

function addDiff(context: SftContext, parameter: Parameter, encoded: ReadonlyMap<string, TorchNode>): void {
  const { model, sites, refuse } = context
  const { name, module, isBias, shape } = parameter
  const size = encoded.get('size')
  if (!isNumbers(size) || size.join() !== shape.join()) {
    throw refuse(name, `has size [${isNumbers(size) ? size.join(', ') : '?'}] where this model has [${shape.join(', ')}]`)
  }
  const entries = readEntries(context, parameter, encoded)
  if (isBias) {
    const delta = new Float32Array(module.outFeatures)
    for (const { index, value } of entries) delta[index] = value
    sites.addOutputVector(module, 'bias', plus(baseBias(model, module), delta))
    return
  }
  if (entries.length === 0) return
  addWeightDifference(model, sites, module, {
    form: 'sparse',
    indices: Int32Array.from(entries, ({ index }) => index),
    values: Float32Array.from(entries, ({ value }) => value),
  })
}

/** Row-major positions in the canonical [out, in], ascending. */
function readEntries(
  { refuse }: SftContext,
  { name, module, isBias, shape }: Parameter,
  encoded: ReadonlyMap<string, TorchNode>,
): readonly { readonly index: number; readonly value: number }[] {
  const steps = encoded.get('index_steps')
  if (!isNumbers(steps)) throw refuse(name, 'has no index_steps')
  const values = tensorOf(encoded.get('values') ?? null, name, [steps.length], refuse)
  const numElements = shape.reduce((product, size) => product * size, 1)
  const [first = 1] = shape
  const isVector = isBias || module.kind === 'norm'
  let at = 0
  const entries = steps.map((step, i) => {
    at += step
    const isRight = Number.isInteger(step) && step >= (i === 0 ? 0 : 1) && at < numElements
    if (!isRight) throw refuse(name, `step ${i} of its indices leads to ${at}, which is no new element of ${numElements}`)
    const [inner, outer] = [at % first, Math.floor(at / first)]
    // A Conv1D stores [in, out], so its fastest dimension is that of the inputs: the order is already row-major.
    const index = isVector || module.isConv1d ? at : inner * module.inFeatures + outer
    return { index, value: values[i] as number }
  })
  return entries.sort((a, b) => a.index - b.index)
}

function addAbsolute({ model, sites, refuse }: SftContext, { name, module, isBias, shape }: Parameter, node: TorchNode): void {
  const values = tensorOf(node, name, shape, refuse)
  if (isBias) {
    sites.addOutputVector(module, 'bias', values)
    return
  }
  const weight = module.isConv1d ? transpose(values, module.inFeatures, module.outFeatures) : values
  sites.replaceWeight(module, weight)
  const isTied = model.spec.tiedHead && module.parts.some(({ site }) => site === 'embed')
  const head = isTied ? findBySite(model, 'lmHead') : null
  if (head !== null) sites.replaceWeight(head, weight)
}

function dictionary(node: TorchNode, field: string, refuse: Refuse): ReadonlyMap<string, TorchNode> {
  if (node === null) return new Map()
  if (isDictionary(node)) return node.entries
  throw refuse(field, 'is not a dictionary, as composable-sft writes it')
}

function tensorOf(node: TorchNode, name: string, shape: readonly number[], refuse: Refuse): Float32Array {
  if (!isTensor(node)) throw refuse(name, 'has no values')
  if (node.shape.join() !== shape.join()) {
    throw refuse(name, `has values of shape [${node.shape.join(', ')}] where [${shape.join(', ')}] are needed`)
  }
  const values = readTensorF32(node)
  const bad = findNonFinite(values)
  if (bad !== -1) throw refuse(name, `holds ${values[bad]} at element ${bad}`)
  return values
}

function isNumbers(node: TorchNode | undefined): node is readonly number[] {
  return Array.isArray(node)
}

function isDictionary(node: TorchNode): node is TorchDictionary {
  return typeof node === 'object' && node !== null && 'entries' in node && node.entries instanceof Map
}

function isTensor(node: TorchNode): node is SafetensorsEntry {
  return typeof node === 'object' && node !== null && 'byteOffset' in node
}
