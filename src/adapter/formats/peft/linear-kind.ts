// What the kinds that act on linears have in common: their targets, and the base parameters their files may carry besides.

import type { ModuleInfo } from '../../../model/module-map.ts'
import { compileBiases, compileOverrides, readBiasMode } from './base-parameters.ts'
import { readWeight } from './module-weights.ts'
import { compileSaved, resolveSaved } from './modules-to-save.ts'
import type { PeftContext } from './peft-context.ts'
import { readTargetRules, resolveTargets } from './target-modules.ts'

export interface LinearKind {
  /** Same answer whatever their values. */
  readonly trainingKeys: readonly string[]
  /** By `model_type`: the targets of a config that names none. */
  readonly defaultTargets: Readonly<Record<string, readonly string[]>>
  /** What `bias` says for "biases of the targeted modules"; null where the type has no such option. */
  readonly targetedBias: string | null
  /** Whether the reference wraps GPT-2's Conv1D. */
  readonly takesConv1d: boolean
  readonly takesEmbeddings?: true
}

export interface LinearTargets {
  /** Linears and heads, and embeddings of a kind that takes them, in module order. */
  readonly modules: readonly ModuleInfo[]
  /** The weight the adapter acts on, [out, in]: the base's, unless the file stores another. */
  weightOf(module: ModuleInfo): Float32Array
}

/** PEFT's default targets of LORA and of most other types. */
export const QUERY_AND_VALUE: Readonly<Record<string, readonly string[]>> = {
  gemma2: ['q_proj', 'v_proj'],
  gemma3_text: ['q_proj', 'v_proj'],
  gpt2: ['c_attn'],
  llama: ['q_proj', 'v_proj'],
  mistral: ['q_proj', 'v_proj'],
  mixtral: ['q_proj', 'v_proj'],
  qwen2: ['q_proj', 'v_proj'],
  qwen3: ['q_proj', 'v_proj'],
}

/**
 * Reads the keys of targets, biases and saved modules, refuses what is left of the config, and compiles the base parameters.
 * To be called after the type has read its own keys.
 */
export function openTargets(context: PeftContext, kind: LinearKind): LinearTargets {
  const { model, config, tensors, refuse } = context
  config.ignore(kind.trainingKeys)
  const rules = readTargetRules(config, kind.defaultTargets[model.spec.modelType] ?? null, refuse)
  const bias = kind.targetedBias === null ? 'none' : readBiasMode(config, kind.targetedBias)
  config.finish()
  const modules = resolveTargets(model.modules, rules, tensors, refuse)
  const saved = resolveSaved(model.modules, rules.modulesToSave)
  const savedSet = new Set(saved)
  for (const module of modules) checkTarget(context, kind, module, savedSet)
  const overrides = compileOverrides(context, savedSet)
  compileSaved(context, saved)
  compileBiases(context, bias, new Set(modules), savedSet)
  return { modules, weightOf: (module) => overrides.get(module) ?? readWeight(model, module) }
}

function checkTarget({ refuse }: PeftContext, kind: LinearKind, module: ModuleInfo, saved: ReadonlySet<ModuleInfo>): void {
  const { path } = module
  if (module.kind === 'norm' || (module.kind === 'embedding' && kind.takesEmbeddings !== true))
    throw refuse('target_modules', `${path} is no linear; this type needs one`)
  if (module.isConv1d && !kind.takesConv1d)
    throw refuse('target_modules', `${path} is a Conv1D, which this type is not defined for`)
  // The reference lets one of the two win, by the order in which it wraps.
  if (saved.has(module)) throw refuse('target_modules', `${path} is also in modules_to_save; the two cannot be combined`)
}
