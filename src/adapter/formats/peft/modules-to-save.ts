// modules_to_save: whole modules the adapter trained as a copy. Their parameters are stored under the module's own name.

import type { ModelSource } from '../../../model/model-source.ts'
import type { ModuleInfo, ModuleMap } from '../../../model/module-map.ts'
import { areEqual, findBySite, requireWeight } from './module-weights.ts'
import type { PeftContext } from './peft-context.ts'

/**
 * Leaf modules that the names cover. The reference matches by plain `endsWith`, without a dot boundary, against every module,
 * containers included: `norm` also takes `post_attention_layernorm`, and `mlp` takes the three linears below it.
 */
export function resolveSaved(modules: ModuleMap, names: readonly string[]): ModuleInfo[] {
  const isSaved = (path: string) => names.some((name) => path.endsWith(name))
  return [...modules.values()].filter(({ path }) => pathAndContainers(path).some(isSaved))
}

/** Replaces weight and bias of each saved module. */
export function compileSaved(context: PeftContext, saved: readonly ModuleInfo[]): void {
  for (const module of saved) {
    if (module.refusal !== null) throw context.refuse('modules_to_save', `${module.path}: ${module.refusal}`)
    compileWhole(context, module, module.path)
  }
}

/** Replaces a module's weight and bias by the tensors stored under `path`. */
export function compileWhole({ sites, tensors }: PeftContext, module: ModuleInfo, path: string): void {
  sites.replaceWeight(module, requireWeight(tensors, module, `${path}.weight`))
  if (module.hasBias) sites.addOutputVector(module, 'bias', tensors.require(`${path}.bias`, [module.outFeatures]).values)
}

/** `ensure_weight_tying` on a tied model: one saved matrix is both the embedding and the head. */
export function compileSavedTied(context: PeftContext, embedding: ModuleInfo, head: ModuleInfo): void {
  const { sites, tensors, refuse } = context
  const weight = requireWeight(tensors, embedding, `${embedding.path}.weight`)
  const headKey = `${head.path}.weight`
  if (tensors.has(headKey) && !areEqual(requireWeight(tensors, head, headKey), weight)) {
    throw refuse('ensure_weight_tying', `the file holds two different matrices for ${embedding.path} and ${head.path}`)
  }
  sites.replaceWeight(embedding, weight)
  sites.replaceWeight(head, weight)
}

/** Embedding and head of a model that ties them, else null. */
export function tiedPair(model: ModelSource): { embedding: ModuleInfo; head: ModuleInfo } | null {
  if (!model.spec.tiedHead) return null
  const embedding = findBySite(model, 'embed')
  const head = findBySite(model, 'lmHead')
  return embedding === null || head === null ? null : { embedding, head }
}

/** `a.b.c`, `a.b`, `a` */
function pathAndContainers(path: string): string[] {
  const names = path.split('.')
  return names.map((_, i) => names.slice(0, names.length - i).join('.'))
}
