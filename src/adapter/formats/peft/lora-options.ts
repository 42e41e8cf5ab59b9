// The config of a LORA adapter, every key either honoured, known to matter in training only, or refused.

import type { ModuleInfo } from '../../../model/module-map.ts'
import { type BiasMode, readBiasMode } from './base-parameters.ts'
import { show } from './config-fields.ts'
import { QUERY_AND_VALUE } from './linear-kind.ts'
import { type CompactFactors, readCompactFactors } from './lora-factors.ts'
import { tiedPair } from './modules-to-save.ts'
import { firstMatches } from './name-patterns.ts'
import type { PeftContext } from './peft-context.ts'
import { checkRank } from './rank.ts'
import { readTargetRules, type TargetRules } from './target-modules.ts'

export interface LoraOptions {
  readonly rules: TargetRules
  readonly rank: number
  readonly alpha: number
  readonly rankPattern: ReadonlyMap<string, number>
  readonly alphaPattern: ReadonlyMap<string, number>
  /** alpha / √r instead of alpha / r (arXiv:2312.03732). */
  readonly isRankStabilized: boolean
  readonly isDora: boolean
  readonly hasLoraBias: boolean
  readonly bias: BiasMode
  /** What the base weight lost before training. */
  readonly baseInit: 'none' | 'pissa' | 'olora'
  readonly isTyingEnsured: boolean
  /** KaSA (arXiv:2412.06071): the base lost its smallest singular components, and B diag(d) A was trained beside the rest. */
  readonly isKasa: boolean
  /** Weights targeted by parameter name; [] = none. */
  readonly parameters: readonly string[]
  readonly compact: CompactFactors
  readonly invocationTokenIds: readonly number[] | null
  /** Writers before PEFT 0.18 stored no version. */
  readonly isVersioned: boolean
}

/** Rank and scale of one module. */
export interface Strength {
  readonly rank: number
  readonly scale: number
}

/** Same answer with and without: dropout, initialisation of A and B, and the trainers' own settings. */
const TRAINING_KEYS = [
  'corda_config',
  'eva_config',
  'lora_dropout',
  'lora_ga_config',
  'loftq_config',
  'megatron_config',
  'megatron_core',
  'monteclora_config',
  'velora_config',
  // Often wrong in files and overridden by the reference: the base layer's own layout decides.
  'fan_in_fan_out',
  // Of PEFT before 0.3: whether the trainer merged while it evaluated.
  'merge_weights',
]

const REFUSED_KEYS: Readonly<Record<string, string>> = {
  // PEFT before 0.3: parts of a fused projection, with factors of their own layout.
  enable_lora: 'low-rank updates of parts of a fused linear in the layout of PEFT before 0.3 are not supported',
  arrow_config: 'routing between adapters (Arrow) is not supported',
  layer_replication: 'a model with replicated layers is not supported',
}

/** Initialisations of A and B that leave the base weight alone. */
const NEUTRAL_INITS: readonly unknown[] = [null, true, false, 'gaussian', 'eva', 'orthogonal', 'mica']

export function readLoraOptions(context: PeftContext): LoraOptions {
  const { model, config, refuse } = context
  for (const [key, reason] of Object.entries(REFUSED_KEYS)) config.mustBeUnset(key, reason)
  config.ignore(TRAINING_KEYS)
  const parameters = config.stringList('target_parameters') ?? []
  const options: LoraOptions = {
    rules: readRules(context, parameters),
    parameters,
    isKasa: readKasa(context),
    rank: checkRank(context, 'r', config.number('r')),
    alpha: config.number('lora_alpha'),
    rankPattern: config.numberMap('rank_pattern'),
    alphaPattern: config.numberMap('alpha_pattern'),
    isRankStabilized: config.flag('use_rslora'),
    isDora: config.flag('use_dora'),
    hasLoraBias: config.flag('lora_bias'),
    bias: readBiasMode(config, 'lora_only'),
    baseInit: readBaseInit(context),
    isTyingEnsured: config.flag('ensure_weight_tying') && tiedPair(model) !== null,
    compact: readCompactFactors(context),
    invocationTokenIds:
      config.value('alora_invocation_tokens') === null
        ? null
        : config.tokenIds('alora_invocation_tokens', model.spec.vocabSize),
    isVersioned: config.value('peft_version') !== null,
  }
  for (const [pattern, rank] of options.rankPattern) checkRank(context, `rank_pattern.${pattern}`, rank)
  if (options.isDora && (options.compact.numBlocks > 1 || options.compact.groupSize > 0))
    throw refuse('use_dora', 'has no meaning together with use_bdlora or use_qalora')
  if (options.isKasa && (options.isDora || options.hasLoraBias || options.baseInit !== 'none'))
    throw refuse('kasa_config', 'cannot be combined with use_dora, lora_bias or init_lora_weights that change the base')
  if (options.isKasa && (options.compact.numBlocks > 1 || options.compact.groupSize > 0 || options.invocationTokenIds !== null))
    throw refuse('kasa_config', 'cannot be combined with another variant of LoRA')
  if (options.isDora && options.hasLoraBias) throw refuse('lora_bias', 'has no meaning together with use_dora')
  if (options.baseInit !== 'none' && (options.isDora || options.invocationTokenIds !== null)) {
    throw refuse('init_lora_weights', `${options.baseInit} together with DoRA or activated LoRA is not supported`)
  }
  return options
}

/** An empty list beside target_parameters means no modules, not the defaults. */
function readRules({ config, model, refuse }: PeftContext, parameters: readonly string[]): TargetRules {
  const value = config.value('target_modules')
  const hasNone = parameters.length > 0 && Array.isArray(value) && value.length === 0
  return readTargetRules(config, hasNone ? [] : (QUERY_AND_VALUE[model.spec.modelType] ?? null), refuse)
}

/** Its two numbers weigh terms of the training loss. */
function readKasa({ config, refuse }: PeftContext): boolean {
  const value = config.value('kasa_config')
  if (value === null) return false
  if (typeof value !== 'object' || Array.isArray(value)) throw refuse('kasa_config', `${show(value)} is not an object`)
  const unknown = Object.keys(value).find((key) => key !== 'beta' && key !== 'gamma')
  if (unknown !== undefined) throw refuse(`kasa_config.${unknown}`, 'is an option this server does not know')
  return true
}

/** By module path: the first pattern in file order that is a dotted suffix of the name, else the global value. */
export function resolveStrengths(
  context: PeftContext,
  options: LoraOptions,
  modules: readonly ModuleInfo[],
  nameOf = ({ path }: ModuleInfo): string => path,
): ReadonlyMap<string, Strength> {
  const paths = modules.map(nameOf)
  const ranks = firstMatches(context, 'rank_pattern', options.rankPattern, paths)
  const alphas = firstMatches(context, 'alpha_pattern', options.alphaPattern, paths)
  const overlap = paths.find((path) => ranks.has(path) && alphas.has(path))
  if (overlap !== undefined && !options.isVersioned) {
    context.warnings.push(
      `rank_pattern and alpha_pattern both match ${overlap}, and the file does not say its PEFT version: PEFT up to 0.13 took both from one key`,
    )
  }
  return new Map(
    modules.map((module) => {
      const name = nameOf(module)
      const rank = ranks.get(name) ?? options.rank
      const alpha = alphas.get(name) ?? options.alpha
      // rsLoRA takes the root of the module's own rank, before anything pads it.
      return [module.path, { rank, scale: alpha / (options.isRankStabilized ? Math.sqrt(rank) : rank) }]
    }),
  )
}

function readBaseInit({ config, refuse }: PeftContext): LoraOptions['baseInit'] {
  const init = config.value('init_lora_weights')
  if (NEUTRAL_INITS.includes(init)) return 'none'
  if (init === 'pissa' || init === 'olora') return init
  throw refuse(
    'init_lora_weights',
    `${show(init)} changes the base weights in a way the file does not tell; save it with path_initial_model_for_weight_conversion`,
  )
}
