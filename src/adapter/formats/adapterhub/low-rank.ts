// LoRA (arXiv:2106.09685), DoRA (arXiv:2402.09353) and IA3 (arXiv:2205.05638) as AdapterHub computes them, which differs from HF PEFT:
// DoRA's norm is without the scale and its factor takes the bias along; IA3 scales outputs everywhere; a gate replaces alpha / r.

import { invariant } from '../../../core/invariant.ts'
import type { LinearRole } from '../../../model/decoder-spec.ts'
import type { ModuleInfo } from '../../../model/module-map.ts'
import { show } from '../peft/config-fields.ts'
import { rowFactors } from '../peft/dora.ts'
import { findBySite, readWeight } from '../peft/module-weights.ts'
import { readGate } from './bottleneck.ts'
import { adaptedLayers, type HubContext } from './hub-context.ts'

const TRAINING_KEYS = ['dropout', 'dtype', 'init_weights', 'init_weights_seed']

/** The library calls the down projection `intermediate` and the up projection `output` in Llama-like models. */
const MLP_ROLES = { intermediate_lora: 'down', output_lora: 'up' } as const

/** Files before this version were trained with a scale of 1, whatever alpha they say. */
const SCALED_SINCE = [1, 1, 0]

export function compileLowRank(context: HubContext): undefined {
  const { config, refuse, model } = context
  config.ignore(TRAINING_KEYS)
  for (const key of ['vera_d', 'vera_b']) config.mustBeUnset(key, 'VeRA is served from HF PEFT files; this layout is not')
  const mode = config.oneOf('composition_mode', ['add', 'scale'], 'add')
  const rank = config.number('r')
  if (!Number.isInteger(rank) || rank < 1) throw refuse('r', `${show(rank)} is not a rank`)
  const alpha = readAlpha(context, rank)
  const isDora = config.flag('use_dora')
  const isGated = config.flag('use_gating')
  const layers = adaptedLayers(context)
  const roles = readRoles(context)
  config.finish()
  if (isGated && (mode === 'scale' || isDora)) throw refuse('use_gating', 'is served for LoRA only')
  for (const layer of layers) {
    for (const role of roles) {
      const module = findBySite(model, `layers.${layer}.${role}`)
      invariant(module !== null, `layer ${layer} has a linear ${role}`)
      if (module.parts.length > 1)
        throw refuse('attn_matrices', `${module.path} is fused in this model; the library has no such model`)
      if (mode === 'scale') compileScale(context, module, alpha)
      else if (isGated) compileGated(context, module, rank)
      else compileDelta(context, module, rank, alpha / rank, isDora)
    }
  }
}

function readAlpha({ config, version, warnings }: HubContext, rank: number): number {
  const alpha = config.number('alpha')
  if (version === null || isAtLeast(version, SCALED_SINCE) || alpha === rank) return alpha
  warnings.push(`alpha ${alpha} is read as ${rank}: this version of the library trained with a scale of 1`)
  return rank
}

function readRoles({ config, refuse }: HubContext): readonly LinearRole[] {
  const matrices = config.stringList('attn_matrices') ?? []
  const unknown = matrices.find((name) => !['q', 'k', 'v'].includes(name))
  if (unknown !== undefined) throw refuse('attn_matrices', `${show(unknown)} is not one of q, k, v`)
  const roles: LinearRole[] = config.flag('selfattn_lora') ? [...(matrices as LinearRole[])] : []
  for (const [key, role] of Object.entries(MLP_ROLES)) if (config.flag(key)) roles.push(role)
  if (roles.length === 0) throw refuse('selfattn_lora', 'no linear is adapted')
  return roles
}

function compileDelta(
  { tensors, sites, model }: HubContext,
  module: ModuleInfo,
  rank: number,
  scale: number,
  isDora: boolean,
): void {
  const path = `${module.path}.loras`
  const { inFeatures, outFeatures } = module
  const a = tensors.require(`${path}.lora_A`, [rank, inFeatures]).values
  const b = tensors.require(`${path}.lora_B`, [outFeatures, rank]).values
  sites.addLowRank(module, { rank, a, b, scale, biasB: null })
  if (!isDora) return
  const magnitude = tensors.require(`${path}.m.weight`, [outFeatures, 1]).values
  const factors = rowFactors(readWeight(model, module), magnitude, { a, b, rank, scale: 1 })
  sites.addOutputVector(module, 'output-scale', factors)
}

function compileGated(context: HubContext, module: ModuleInfo, rank: number): void {
  const { tensors, sites } = context
  const path = `${module.path}.loras`
  const { inFeatures, outFeatures } = module
  const a = tensors.require(`${path}.lora_A`, [rank, inFeatures]).values
  const b = tensors.require(`${path}.lora_B`, [outFeatures, rank]).values
  sites.addGatedLowRank(module, { rank, a, b, gate: readGate(context, `${path}.gate`, inFeatures) })
}

function compileScale({ tensors, sites }: HubContext, module: ModuleInfo, alpha: number): void {
  const vector = tensors.require(`${module.path}.loras.lora_B`, [module.outFeatures, 1]).values
  sites.addOutputVector(
    module,
    'output-scale',
    vector.map((value) => value * alpha),
  )
}

function isAtLeast(version: readonly number[], least: readonly number[]): boolean {
  for (const [i, number] of least.entries()) {
    const own = version[i] ?? 0
    if (own !== number) return own > number
  }
  return true
}
