// LORA (arXiv:2106.09685) with every option of PEFT 0.21 that changes inference; lora-options.ts holds its list of refusals.

import { invariant } from '../../../core/invariant.ts'
import type { ModuleInfo } from '../../../model/module-map.ts'
import { compileBiases, compileOverrides } from './base-parameters.ts'
import { compileEmbedding, compileLinear } from './lora-modules.ts'
import { readLoraOptions, resolveStrengths, type Strength } from './lora-options.ts'
import { parameterName, resolveParameters } from './lora-parameters.ts'
import { compileTiedHead, tiedTargets } from './lora-tying.ts'
import { compileSaved, compileSavedTied, resolveSaved } from './modules-to-save.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { resolveTargets } from './target-modules.ts'
import { compileTokenRows, modulesOfRows, readTokenOption } from './trainable-tokens.ts'

export function compileLora(context: PeftContext): PeftScope {
  const options = readLoraOptions(context)
  const tokens = readTokenOption(context)
  context.config.finish()
  const { model, tensors, refuse } = context
  const tied = tiedTargets(context, options)
  const parameters = resolveParameters(context, options)
  const hasModules = tied.rules.targets.length > 0
  const targets = hasModules ? resolveTargets(model.modules, tied.rules, tensors, refuse) : []
  const saved = resolveSaved(model.modules, tied.rules.modulesToSave).filter((module) => !tied.isSaved(module))
  const targetSet = new Set(targets)
  const savedSet = new Set([...saved, ...[...model.modules.values()].filter(tied.isSaved)])
  refuseConflicts(context, [...targets, ...tied.lowRankHead, ...parameters], savedSet, modulesOfRows(context, tokens))
  const overrides = compileOverrides(context, savedSet)
  const strengths = resolveStrengths(context, options, [...targets, ...tied.lowRankHead])
  for (const module of targets) {
    const strength = strengthOf(strengths, module)
    if (module.kind === 'embedding') compileEmbedding(context, options, module, strength, overrides.get(module))
    else compileLinear(context, options, module, strength, overrides.get(module))
  }
  const ofParameters = resolveStrengths(context, options, parameters, parameterName)
  for (const module of parameters) {
    compileLinear(context, options, module, strengthOf(ofParameters, module), overrides.get(module))
  }
  for (const head of tied.lowRankHead) compileTiedHead(context, head, strengthOf(strengths, head))
  compileSaved(context, saved)
  if (tied.saved !== null) compileSavedTied(context, tied.saved.embedding, tied.saved.head)
  compileBiases(context, options.bias, targetSet, savedSet)
  compileTokenRows(context, tokens, '.token_adapter.trainable_tokens_delta')
  // VeLoRA keeps a projection of its trainer beside A and B.
  tensors.skip('.lora_velora_embed')
  if (options.invocationTokenIds !== null) requireLowRankOnly(context)
  return { ...EVERYWHERE, invocationTokenIds: options.invocationTokenIds }
}

/** The reference lets one of two options win at such a module, by the order in which it wraps; that is nobody's intention. */
function refuseConflicts(
  { refuse }: PeftContext,
  targets: readonly ModuleInfo[],
  saved: ReadonlySet<ModuleInfo>,
  rows: readonly ModuleInfo[],
): void {
  for (const [i, module] of targets.entries()) {
    const { path, kind } = module
    if (targets.indexOf(module) !== i) throw refuse('target_parameters', `${path} is also in target_modules`)
    if (kind === 'norm') throw refuse('target_modules', `${path} is a norm; LoRA needs a linear or an embedding`)
    if (saved.has(module)) throw refuse('target_modules', `${path} is also in modules_to_save; the two cannot be combined`)
  }
  for (const module of rows) {
    if (saved.has(module) || targets.includes(module)) {
      throw refuse(
        'trainable_token_indices',
        `${module.path} is also targeted or in modules_to_save; the two cannot be combined`,
      )
    }
  }
}

/** Before the invocation an activated LoRA must be the base model on every site (arXiv:2504.12397), or cached prompts would lie. */
function requireLowRankOnly({ sites, refuse }: PeftContext): void {
  for (const [site, primitives] of sites.build()) {
    if (site === 'embed' || primitives.some((primitive) => primitive.kind !== 'low-rank')) {
      throw refuse('alora_invocation_tokens', `cannot be combined with an option that changes ${site} for all tokens`)
    }
  }
}

function strengthOf(strengths: ReadonlyMap<string, Strength>, module: ModuleInfo): Strength {
  const strength = strengths.get(module.path)
  invariant(strength !== undefined, `no rank for ${module.path}`)
  return strength
}
