// Interventions of pyreft (ReFT, arXiv:2404.03592): `config.json` of pyvene and one `intkey_….bin` an intervention.
//
// The files do not say WHICH positions are edited: the trainer's data module did. The operator adds `positions` to config.json, in the
// notation of pyreft's option: "f7+l7", "f1", "l1". Neither do they name an activation; one that was used is added as `act_fn`.

import type { ModelSource } from '../../../model/model-source.ts'
import type { BottleneckActivation, PromptScope, Site } from '../../primitive.ts'
import { activationNamed } from '../activation-names.ts'
import type { CompiledSites } from '../compiled-sites.ts'
import { ConfigFields, show } from '../peft/config-fields.ts'
import type { Refuse } from '../peft/refuse.ts'
import { SiteBuilder } from '../site-builder.ts'
import { isIntervention, readIntervention } from './intervention.ts'
import { readRepresentations } from './representations.ts'

/** A directory of pyreft (https://github.com/stanfordnlp/pyreft). */
export interface ReftDirectory {
  readonly format: 'pyreft'
  readonly config: Readonly<Record<string, unknown>>
  /** Paths of its PyTorch files by name. */
  readonly weightsPaths: ReadonlyMap<string, string>
}

const INERT_KEYS = [
  'architectures',
  'dtype',
  'intervention_constant_sources',
  'intervention_dimensions',
  'model_type',
  'sorted_keys',
  'torch_dtype',
  'transformers_version',
]

/** Throws ADAPTER_REFUSED naming the config key, file or tensor at fault, or TORCH_FILE_INVALID. */
export function compilePyreft({ config: raw, weightsPaths }: ReftDirectory, model: ModelSource, refuse: Refuse): CompiledSites {
  const config = new ConfigFields(raw, refuse)
  config.ignore(INERT_KEYS)
  config.oneOf('mode', ['parallel'], 'parallel')
  const type = readType(config.value('intervention_types'), refuse)
  const activation = readActivation(config, refuse)
  const ends = readPositions(config.value('positions'), refuse)
  const units = readRepresentations(config.value('representations'), model.spec.numLayers, weightsPaths, refuse)
  config.finish()
  const sites = new SiteBuilder()
  for (const { layer, weightsPath, index, count } of units) {
    const scope = scopeOf(ends, index, count, layer, refuse)
    const edit = readIntervention(type, weightsPath, model.spec.hiddenSize, activation, refuse)
    const site: Site = `layers.${layer}.blockOut`
    sites.addAtHook(site, { kind: 'stream-edit', ...edit, scope })
  }
  const kind = `pyreft/${type.replace('Intervention', '')}`
  return { kind, sites: sites.build(), invocationTokenIds: null, virtualTokens: null, warnings: [] }
}

/** `<class 'pyreft.interventions.LoreftIntervention'>`, one an intervention. */
function readType(value: unknown, refuse: Refuse): string {
  const field = 'intervention_types'
  if (!Array.isArray(value) || value.length === 0) throw refuse(field, `${show(value)} is not a list of classes`)
  const names = new Set(value.map((name) => (typeof name === 'string' ? (/(\w+)'>$/.exec(name)?.[1] ?? name) : '')))
  const [type = '', second] = names
  if (second !== undefined) throw refuse(field, `${type} and ${second} in one adapter are not served`)
  if (!isIntervention(type)) throw refuse(field, `${show(type)} is not served`)
  return type
}

function readActivation(config: ConfigFields, refuse: Refuse): BottleneckActivation {
  const name = config.value('act_fn')
  return name === null ? 'identity' : activationNamed(name, 'act_fn', refuse)
}

interface Ends {
  readonly numFirst: number
  readonly numLast: number
}

function readPositions(value: unknown, refuse: Refuse): Ends {
  if (value === null) {
    throw refuse(
      'positions',
      'missing; pyreft does not store which positions it edits, so add them to config.json, like "f7+l7"',
    )
  }
  const match = typeof value === 'string' ? /^(?:f(\d+))?(?:(?:^|\+)l(\d+))?$/.exec(value) : null
  const ends = { numFirst: Number(match?.[1] ?? 0), numLast: Number(match?.[2] ?? 0) }
  if (match === null || ends.numFirst + ends.numLast === 0) {
    throw refuse('positions', `${show(value)} names no position; write them like "f7+l7", "f1" or "l1"`)
  }
  return ends
}

/** Two interventions of a layer edit one end each, in this order; one edits both with the same weights. */
function scopeOf(ends: Ends, index: number, count: number, layer: number, refuse: Refuse): PromptScope {
  const capped = { isCappedAtHalf: true } as const
  if (count === 1) return { ...ends, ...capped }
  if (count > 2 || ends.numFirst === 0 || ends.numLast === 0) {
    throw refuse(
      'positions',
      `layer ${layer} has ${count} interventions: two, for first and last positions ("f7+l7"), are served`,
    )
  }
  return index === 0 ? { ...ends, numLast: 0, ...capped } : { ...ends, numFirst: 0, ...capped }
}
