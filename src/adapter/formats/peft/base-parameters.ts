// Base parameters that an adapter file carries beside its own tensors: biases trained with `bias`, and embedding matrices that
// PEFT saves when they are targeted or resized. Equal to the base they mean nothing; different, they replace it.

import type { ModuleInfo } from '../../../model/module-map.ts'
import type { ConfigFields } from './config-fields.ts'
import { areEqual, readPart, readWeight, requireWeight } from './module-weights.ts'
import { tiedPair } from './modules-to-save.ts'
import type { PeftContext } from './peft-context.ts'

export type BiasMode = 'none' | 'all' | 'targeted'

/** Reads `bias`; every type has its own word for "of the targeted modules", such as `lora_only`. */
export function readBiasMode(config: ConfigFields, targetedWord: string): BiasMode {
  const mode = config.oneOf('bias', ['none', 'all', targetedWord], 'none')
  return mode === 'none' || mode === 'all' ? mode : 'targeted'
}

/** Biases of every module (`all`) or of the targeted ones replace the base's. */
export function compileBiases(
  context: PeftContext,
  mode: BiasMode,
  targets: ReadonlySet<ModuleInfo>,
  saved: ReadonlySet<ModuleInfo>,
): void {
  if (mode === 'none') return
  const { model, sites, tensors } = context
  for (const module of model.modules.values()) {
    if (!module.hasBias || saved.has(module) || (mode === 'targeted' && !targets.has(module))) continue
    // A wrapped module keeps its bias one level down; writers before the wrapper existed did not.
    const [wrapped, plain] = [`${module.path}.base_layer.bias`, `${module.path}.bias`]
    const isWrapped = tensors.has(wrapped) || (targets.has(module) && !tensors.has(plain))
    const key = isWrapped ? wrapped : plain
    const bias = tensors.require(key, [module.outFeatures]).values
    if (!areEqual(bias, baseBias(context, module))) sites.addOutputVector(module, 'bias', bias)
  }
}

/**
 * Embedding and head matrices stored as base parameters (`embed_tokens.base_layer.weight`, or without `base_layer` where they are
 * not targeted). Returns those that differ from the base, by module. On a tied model both names are one parameter.
 */
export function compileOverrides(context: PeftContext, saved: ReadonlySet<ModuleInfo>): ReadonlyMap<ModuleInfo, Float32Array> {
  const { model, sites, tensors, refuse } = context
  const overrides = new Map<ModuleInfo, Float32Array>()
  for (const module of model.modules.values()) {
    if ((module.kind !== 'embedding' && module.kind !== 'head') || saved.has(module)) continue
    for (const key of [`${module.path}.base_layer.weight`, `${module.path}.weight`]) {
      if (!tensors.has(key)) continue
      const rows = tensors.leadingSize(key)
      if (rows !== module.outFeatures) {
        throw refuse(
          key,
          `has ${rows} rows, the base model ${module.outFeatures}: an adapter with a resized vocabulary is not supported`,
        )
      }
      const weight = requireWeight(tensors, module, key)
      if (!areEqual(weight, readWeight(model, module))) overrides.set(module, weight)
    }
  }
  shareTied(context, overrides)
  for (const [module, weight] of overrides) sites.replaceWeight(module, weight)
  return overrides
}

function shareTied(context: PeftContext, overrides: Map<ModuleInfo, Float32Array>): void {
  const pair = tiedPair(context.model)
  if (pair === null) return
  const ofEmbedding = overrides.get(pair.embedding)
  const ofHead = overrides.get(pair.head)
  if (ofEmbedding !== undefined && ofHead !== undefined && !areEqual(ofEmbedding, ofHead)) {
    throw context.refuse(`${pair.head.path}.weight`, `differs from ${pair.embedding.path}, and this model ties the two`)
  }
  const weight = ofEmbedding ?? ofHead
  if (weight === undefined) return
  overrides.set(pair.embedding, weight)
  overrides.set(pair.head, weight)
}

function baseBias(context: PeftContext, module: ModuleInfo): Float32Array {
  const bias = new Float32Array(module.outFeatures)
  for (const part of module.parts) {
    bias.set(readPart(context.model, { ...part, site: `${part.site}.bias` }), part.rowStart)
  }
  return bias
}
