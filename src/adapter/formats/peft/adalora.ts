// ADALORA (arXiv:2303.10512) as PEFT serves it: ΔW = lora_alpha / (init_r + 1e-5) · B · diag(E) · A. The divisor is the rank
// before pruning whatever survived; the file holds the survivors only. E is folded into the columns of B.

import type { ModuleInfo } from '../../../model/module-map.ts'
import { show } from './config-fields.ts'
import { type LinearKind, openTargets, QUERY_AND_VALUE } from './linear-kind.ts'
import { scaleColumns } from './module-weights.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { checkStoredRank, readSize } from './rank.ts'

const ADALORA: LinearKind = {
  trainingKeys: [
    'beta1',
    'beta2',
    'deltaT',
    'fan_in_fan_out',
    'init_lora_weights',
    'lora_dropout',
    'megatron_config',
    'megatron_core',
    'orth_reg_weight',
    'qalora_group_size',
    'r',
    'target_r',
    'tfinal',
    'tinit',
    'total_step',
  ],
  defaultTargets: QUERY_AND_VALUE,
  targetedBias: 'lora_only',
  takesConv1d: true,
}

/** PEFT adds it to the rank against a division by zero; left out, float32 outputs differ visibly. */
const RANK_EPSILON = 1e-5

export function compileAdalora(context: PeftContext): PeftScope {
  const { config, refuse } = context
  const initialRank = readSize(context, 'init_r')
  const alpha = config.number('lora_alpha')
  const survivors = readSurvivors(context, initialRank)
  if (alpha <= 0 && survivors.size > 0)
    throw refuse('lora_alpha', `${alpha} makes the scale depend on pruning, which the reference does differently on reload`)
  const { modules } = openTargets(context, ADALORA)
  const scale = (alpha > 0 ? alpha : initialRank) / (initialRank + RANK_EPSILON)
  const paths = new Set(modules.map(({ path }) => path))
  for (const path of survivors.keys()) {
    if (!paths.has(path)) throw refuse(`rank_pattern.${path}.lora_E`, 'names no targeted module')
  }
  for (const module of modules) compileModule(context, module, survivors.get(module.path) ?? initialRank, scale)
  return EVERYWHERE
}

function compileModule(context: PeftContext, module: ModuleInfo, rank: number, scale: number): void {
  const { tensors, sites } = context
  const { path, outFeatures, inFeatures } = module
  checkStoredRank(context, `${path}.lora_A`, rank, 'rank_pattern')
  const a = tensors.require(`${path}.lora_A`, [rank, inFeatures]).values
  const b = tensors.require(`${path}.lora_B`, [outFeatures, rank]).values
  const e = tensors.require(`${path}.lora_E`, [rank, 1]).values
  // Pruning may take every rank of a module.
  if (rank > 0) sites.addLowRank(module, { rank, scale, a, b: scaleColumns(b, e), biasB: null })
}

/** rank_pattern: by `<path>.lora_E`, which of the initial ranks survived. Returns the number of survivors by path. */
function readSurvivors({ config, refuse }: PeftContext, initialRank: number): ReadonlyMap<string, number> {
  const value = config.value('rank_pattern')
  if (value === null) return new Map()
  if (typeof value !== 'object' || Array.isArray(value)) throw refuse('rank_pattern', `${show(value)} is not an object`)
  return new Map(
    Object.entries(value).map(([name, kept]) => {
      const isMask = Array.isArray(kept) && kept.length === initialRank && kept.every((one) => typeof one === 'boolean')
      if (!isMask) throw refuse(`rank_pattern.${name}`, `${show(kept)} is not a list of ${initialRank} booleans (init_r)`)
      return [name.replace(/\.lora_E(\.[^.]+)?$/, ''), kept.filter(Boolean).length]
    }),
  )
}
