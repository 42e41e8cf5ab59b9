// Where the interventions of a pyreft directory act, and which file holds each.

import { at } from '../../../core/invariant.ts'
import { show } from '../peft/config-fields.ts'
import type { Refuse } from '../peft/refuse.ts'

export interface InterventionUnit {
  readonly layer: number
  readonly weightsPath: string
  /** Among those of its layer, and how many those are. */
  readonly index: number
  readonly count: number
}

/** Fields of pyvene's RepresentationConfig, in the order in which it is stored. */
const FIELDS = [
  'layer',
  'component',
  'unit',
  'max_number_of_units',
  'low_rank_dimension',
  'intervention_type',
  'intervention',
  'subspace_partition',
  'group_key',
  'intervention_link_key',
  'moe_key',
  'source_representation',
  'hidden_source_representation',
  'latent_dim',
] as const

/** What no ReFT intervention sets, and none that does is served. */
const UNSET_FIELDS = ['subspace_partition', 'group_key', 'intervention_link_key', 'moe_key', 'hidden_source_representation']

/** The output of a layer, by attribute access: `base_model.model.model.layers[15].output`. */
const LAYER_OUTPUT = /(?:^|\.)(?:layers|h)\[(\d+)\]\.output$/

type Representation = Readonly<Record<string, unknown>>

/** In file order. Throws ADAPTER_REFUSED where a representation is none this server knows, or its file is missing. */
export function readRepresentations(
  value: unknown,
  numLayers: number,
  weightsPaths: ReadonlyMap<string, string>,
  refuse: Refuse,
): readonly InterventionUnit[] {
  if (!Array.isArray(value) || value.length === 0) throw refuse('representations', `${show(value)} is not a list`)
  const files = new Map([...weightsPaths].map(([name, path]) => [normalized(name), { name, path }]))
  const layers = value.map((each: unknown, i) => readLayer(fieldsOf(each, i, refuse), i, numLayers, refuse))
  const counts = new Map<number, number>()
  const keys = new Map<string, number>()
  const units = value.map((each: unknown, i) => {
    const layer = at(layers, i)
    const index = counts.get(layer) ?? 0
    counts.set(layer, index + 1)
    const proposal = keyOf(fieldsOf(each, i, refuse))
    const collision = keys.get(proposal) ?? 0
    keys.set(proposal, collision + 1)
    const wanted = `intkey_${proposal}#${collision}.bin`
    const file = files.get(normalized(wanted))
    if (file === undefined) throw refuse(wanted, 'the file is missing, and config.json has this intervention')
    files.delete(normalized(wanted))
    return { layer, weightsPath: file.path, index }
  })
  const [left] = files.values()
  if (left !== undefined) throw refuse(left.name, 'belongs to no intervention of config.json')
  return units.map((unit) => ({ ...unit, count: counts.get(unit.layer) ?? 0 }))
}

function fieldsOf(value: unknown, index: number, refuse: Refuse): Representation {
  if (Array.isArray(value) && value.length <= FIELDS.length) {
    return Object.fromEntries(value.map((field: unknown, i) => [at(FIELDS, i), field]))
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Representation
  throw refuse(`representations[${index}]`, `${show(value)} is no representation`)
}

function readLayer(fields: Representation, index: number, numLayers: number, refuse: Refuse): number {
  const field = `representations[${index}]`
  const unknown = Object.keys(fields).find((name) => !FIELDS.includes(name as (typeof FIELDS)[number]))
  const set = UNSET_FIELDS.find((name) => (fields[name] ?? null) !== null)
  if (unknown !== undefined || set !== undefined) throw refuse(`${field}.${unknown ?? set}`, 'is not served')
  const { component = 'block_output', unit = 'pos' } = fields
  if (unit !== 'pos') throw refuse(`${field}.unit`, `${show(unit)} is not served; pos is`)
  const path = typeof component === 'string' ? LAYER_OUTPUT.exec(component)?.[1] : undefined
  if (component !== 'block_output' && path === undefined) {
    throw refuse(`${field}.component`, `${show(component)} is not served; the output of a layer is`)
  }
  const layer = path === undefined ? fields['layer'] : Number(path)
  if (typeof layer !== 'number' || !Number.isInteger(layer) || layer < 0 || layer >= numLayers) {
    throw refuse(`${field}.layer`, `${show(layer)} is no layer of this model (0 to ${numLayers - 1})`)
  }
  return layer
}

function keyOf({
  layer = 0,
  component = 'block_output',
  unit = 'pos',
  max_number_of_units: count = 1,
}: Representation): string {
  const path = String(component)
  const where = path.includes('.') ? `comp_${path.replaceAll('.', '_')}` : `layer_${String(layer)}_comp_${path}`
  return `${where}_unit_${String(unit)}_nunit_${String(count)}`
}

/** Earlier versions separate the parts by dots, and call a component a representation. */
function normalized(name: string): string {
  return name
    .replace(/\.bin$/, '')
    .replaceAll('.', '_')
    .replace('_repr_', '_comp_')
}
