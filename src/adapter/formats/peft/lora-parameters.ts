// `target_parameters` of LORA (PEFT 0.17): parameters named one by one instead of modules. That of a dense linear is an ordinary
// low-rank update; its patterns for rank and alpha match the parameter's name, `q_proj.weight`.

import type { ModuleInfo } from '../../../model/module-map.ts'
import type { LoraOptions } from './lora-options.ts'
import { tiedPair } from './modules-to-save.ts'
import type { PeftContext } from './peft-context.ts'

const FIELD = 'target_parameters'

const WEIGHT = '.weight'

/** Linears whose weight is targeted as a parameter, in module order. */
export function resolveParameters(context: PeftContext, options: LoraOptions): readonly ModuleInfo[] {
  const { model, refuse } = context
  const { parameters } = options
  if (parameters.length === 0) return []
  if (options.isDora || options.hasLoraBias || options.isKasa || options.compact.numBlocks > 1 || options.baseInit !== 'none')
    throw refuse(FIELD, 'can be combined with no variant of LoRA')
  if (options.invocationTokenIds !== null) throw refuse(FIELD, 'cannot be combined with alora_invocation_tokens')
  const found = [...model.modules.values()].filter(({ path }) => parameters.some((name) => isNamedBy(path + WEIGHT, name)))
  const unmatched = parameters.find((name) => !found.some(({ path }) => isNamedBy(path + WEIGHT, name)))
  if (unmatched !== undefined)
    throw refuse(FIELD, `${unmatched} is no weight of a linear in this model; stacked expert parameters are not supported`)
  for (const module of found) checkParameter(context, module)
  return found
}

/** The name that patterns see. */
export function parameterName({ path }: ModuleInfo): string {
  return path + WEIGHT
}

function checkParameter({ model, refuse }: PeftContext, module: ModuleInfo): void {
  const { path, kind, isConv1d, refusal } = module
  if (refusal !== null) throw refuse(FIELD, `${path}: ${refusal}`)
  const isTied = tiedPair(model)?.head === module
  if ((kind !== 'linear' && kind !== 'head') || isConv1d || isTied)
    throw refuse(FIELD, `${path}${WEIGHT} is not the weight of a linear of its own`)
}

function isNamedBy(parameter: string, name: string): boolean {
  return parameter === name || parameter.endsWith(`.${name}`)
}
