// Which modules a config targets: the rules of PEFT 0.21 (tuners_utils.check_target_module_exists), in its order of precedence.

import type { ModuleInfo, ModuleMap } from '../../../model/module-map.ts'
import type { ConfigFields } from './config-fields.ts'
import { show } from './config-fields.ts'
import { matchingKeys } from './python-regex.ts'
import type { Refuse } from './refuse.ts'
import type { TensorSet } from './tensor-set.ts'

export interface TargetRules {
  /** Names, one pattern, or `all-linear`. */
  readonly targets: readonly string[] | string
  readonly exclude: readonly string[] | string | null
  readonly modulesToSave: readonly string[]
  /** null = all layers. */
  readonly layers: readonly number[] | null
  readonly layersPatterns: readonly string[]
}

const ALL_LINEAR = 'all-linear'

const FULL_MATCH = { prefix: '^(?:', suffix: ')$' } as const

/** Reads target_modules, exclude_modules, modules_to_save, layers_to_transform and layers_pattern. `defaults` stand for null. */
export function readTargetRules(config: ConfigFields, defaults: readonly string[] | null, refuse: Refuse): TargetRules {
  const targets = config.names('target_modules') ?? defaults
  if (targets === null) throw refuse('target_modules', 'missing, and this model has no default targets')
  const layers = readLayers(config, refuse)
  const layersPattern = config.names('layers_pattern')
  if (typeof targets === 'string' && (layers !== null || layersPattern !== null)) {
    throw refuse('layers_to_transform', 'cannot be used when target_modules is a pattern')
  }
  if (layersPattern !== null && layers === null) throw refuse('layers_pattern', 'has no meaning without layers_to_transform')
  return {
    targets,
    exclude: config.names('exclude_modules'),
    modulesToSave: config.stringList('modules_to_save') ?? [],
    layers,
    layersPatterns: typeof layersPattern === 'string' ? [layersPattern] : (layersPattern ?? []),
  }
}

/**
 * Targeted modules in module order. Throws ADAPTER_REFUSED when there are none or one cannot be targeted. Modules that this
 * server cannot adapt do not count where the file has nothing for them: transformers 5 keeps experts as one parameter, so that
 * a list with `gate_proj` trains attention alone.
 */
export function resolveTargets(
  modules: ModuleMap,
  rules: TargetRules,
  tensors: Pick<TensorSet, 'hasUnder'>,
  refuse: Refuse,
): ModuleInfo[] {
  const paths = [...modules.keys()]
  const excluded = excludedPaths(paths, rules, refuse)
  const isTarget = targetTest(modules, rules, refuse)
  const found = [...modules.values()].filter(
    ({ path, refusal }) => !excluded.has(path) && isTarget(path) && (refusal === null || tensors.hasUnder(path)),
  )
  if (found.length === 0) {
    throw refuse(
      'target_modules',
      `${show(rules.targets)} matches no module of this model; is it an adapter of another base model?`,
    )
  }
  for (const { path, refusal } of found) if (refusal !== null) throw refuse('target_modules', `${path}: ${refusal}`)
  return found
}

function excludedPaths(paths: readonly string[], rules: TargetRules, refuse: Refuse): ReadonlySet<string> {
  const excluded = new Set<string>()
  const addAll = (found: Iterable<string>) => {
    for (const path of found) excluded.add(path)
  }
  const { exclude } = rules
  if (typeof exclude === 'string') addAll(matchingKeys(exclude, FULL_MATCH, paths, 'exclude_modules', refuse))
  else if (exclude !== null) addAll(paths.filter((path) => exclude.some((name) => isNamedBy(path, name))))
  for (const name of rules.modulesToSave) {
    addAll(matchingKeys(name, { prefix: '^(?:|.*\\.)', suffix: '(?:$|\\..*)' }, paths, 'modules_to_save', refuse))
  }
  return excluded
}

function targetTest(modules: ModuleMap, rules: TargetRules, refuse: Refuse): (path: string) => boolean {
  const { targets } = rules
  if (typeof targets === 'string') {
    if (targets.toLowerCase() === ALL_LINEAR) return (path) => modules.get(path)?.kind === 'linear'
    const matched = matchingKeys(targets, FULL_MATCH, [...modules.keys()], 'target_modules', refuse)
    return (path) => matched.has(path)
  }
  const exact = new Set(targets)
  const isInLayers = layerTest(modules, rules, refuse)
  // A full path is taken whatever the layer, as in the reference: its layer filter sits in the branch of suffixes.
  return (path) => exact.has(path) || (targets.some((name) => path.endsWith(`.${name}`)) && isInLayers(path))
}

function layerTest(modules: ModuleMap, rules: TargetRules, refuse: Refuse): (path: string) => boolean {
  const { layers, layersPatterns } = rules
  if (layers === null) return () => true
  const paths = [...modules.keys()]
  const inPatterns = layersPatterns.map((pattern) =>
    matchingKeys(pattern, { prefix: '^(?:|.*?\\.)(?:', suffix: ')\\.\\d+\\.' }, paths, 'layers_pattern', refuse),
  )
  return (path) => {
    const layer = /\.(\d+)\./.exec(path)?.[1]
    if (layer === undefined || !layers.includes(Number(layer))) return false
    return inPatterns.length === 0 || inPatterns.some((matched) => matched.has(path))
  }
}

/** PEFT's list rule: the whole path, or a dotted suffix of it. */
function isNamedBy(path: string, name: string): boolean {
  return path === name || path.endsWith(`.${name}`)
}

function readLayers(config: ConfigFields, refuse: Refuse): readonly number[] | null {
  const value = config.value('layers_to_transform')
  if (value === null) return null
  const layers = Array.isArray(value) ? value : [value]
  if (!layers.every((layer) => Number.isInteger(layer)))
    throw refuse('layers_to_transform', `${show(value)} is not a list of layers`)
  return layers.length === 0 ? null : layers
}
