// The project's own container (docs/adapter-format.md): `lorikeet_adapter.json` states a program of primitives and the sites they act
// on, `adapter.safetensors` holds the tensors it names. What no library has a format for is served through it.

import type { DecoderSpec } from '../../../model/decoder-spec.ts'
import type { ModelSource } from '../../../model/model-source.ts'
import type { Primitive, Site, VirtualTokens } from '../../primitive.ts'
import type { CompiledSites } from '../compiled-sites.ts'
import { show } from '../peft/config-fields.ts'
import type { Refuse } from '../peft/refuse.ts'
import { EntryReader } from './entry-reader.ts'
import { NativeTensors } from './native-tensors.ts'
import { readPooledGate, readPrimitive } from './read-primitive.ts'

/** A native directory, its JSON read. */
export interface NativeDirectory {
  readonly format: 'native'
  readonly adapter: Readonly<Record<string, unknown>>
  readonly weightsPath: string
}

/** Of the container; a file of another one is refused. */
export const NATIVE_VERSION = 1

const OUTSIDE_LAYERS: readonly string[] = ['embed', 'positions', 'finalNorm', 'lmHead']

const LAYER_SITE = /^layers\.(\d+|\{layer\})\.(\w+)$/

/** Throws ADAPTER_REFUSED naming the key or tensor at fault, or SAFETENSORS_INVALID. */
export function compileNative(directory: NativeDirectory, model: ModelSource, refuse: Refuse): CompiledSites {
  const tensors = new NativeTensors(directory.weightsPath, refuse)
  const { program, ...header } = directory.adapter
  const root = new EntryReader('lorikeet_adapter', header, null, tensors, refuse)
  if (root.value('version') !== NATIVE_VERSION) {
    throw refuse('version', `${show(root.value('version'))} is not ${NATIVE_VERSION}, the version this server reads`)
  }
  const kind = root.value('kind') ?? 'native'
  if (typeof kind !== 'string' || kind === '') throw refuse('kind', `${show(kind)} is not a name`)
  root.value('base_model_name_or_path')
  const entries = program ?? []
  if (!Array.isArray(entries)) throw refuse('program', `${show(entries)} is not a list`)
  const sites = new Map<Site, Primitive[]>()
  entries.forEach((entry: unknown, i) => {
    compileEntry(`program[${i}]`, entry, model.spec, tensors, refuse, sites)
  })
  const virtualTokens = readVirtualTokens(root, directory.adapter, model.spec, tensors)
  const invocationTokenIds = readInvocation(root, model.spec)
  root.finish()
  tensors.finish()
  if (sites.size === 0 && virtualTokens === null) throw refuse('program', 'is empty, so the adapter would be the base model')
  return { kind, sites, invocationTokenIds, virtualTokens, warnings: [] }
}

/** An entry with `{layer}` in its site is one for each of `layers`. */
function compileEntry(
  path: string,
  value: unknown,
  spec: DecoderSpec,
  tensors: NativeTensors,
  refuse: Refuse,
  sites: Map<Site, Primitive[]>,
): void {
  const outline = new EntryReader(path, value, null, tensors, refuse)
  const name = outline.value('site')
  const match = typeof name === 'string' ? LAYER_SITE.exec(name) : null
  if (typeof name !== 'string' || (match === null && !OUTSIDE_LAYERS.includes(name))) {
    throw refuse(outline.field('site'), `${show(name)} is no site; sites are layers.N.NAME and ${OUTSIDE_LAYERS.join(', ')}`)
  }
  const isTemplate = match?.[1] === '{layer}'
  const layers = isTemplate ? readLayers(outline, spec) : [null]
  for (const layer of layers) {
    const entry = new EntryReader(path, value, layer, tensors, refuse)
    entry.value('site')
    if (isTemplate) entry.value('layers')
    // Whether the model has such a site, and whether the shapes fit it, is for the backends' check of any adapter.
    const site = (layer === null ? name : name.replace('{layer}', String(layer))) as Site
    const primitive = readPrimitive(entry)
    entry.finish()
    const present = sites.get(site)
    if (present === undefined) sites.set(site, [primitive])
    else present.push(primitive)
  }
}

function readLayers(entry: EntryReader, { numLayers }: DecoderSpec): readonly number[] {
  const value = entry.value('layers') ?? 'all'
  if (value === 'all') return Array.from({ length: numLayers }, (_, layer) => layer)
  const isList = Array.isArray(value) && value.every((layer) => Number.isInteger(layer) && layer >= 0 && layer < numLayers)
  if (isList) return value as number[]
  throw entry.refuse(entry.field('layers'), `${show(value)} is neither all nor a list of this model's layers`)
}

function readVirtualTokens(
  root: EntryReader,
  adapter: Readonly<Record<string, unknown>>,
  { numLayers }: DecoderSpec,
  tensors: NativeTensors,
): VirtualTokens | null {
  const head = root.optionalChild('virtualTokens')
  if (head === null) return null
  const layers = Array.from({ length: numLayers }, (_, layer) => {
    return new EntryReader('virtualTokens', adapter['virtualTokens'], layer, tensors, root.refuse)
  })
  if (head.word('kind', ['soft-prompt', 'prefix']) === 'soft-prompt') {
    const { values: rows, shape } = head.tensor('rows', 2)
    const hasLayerRows = head.value('layerRows') !== null
    const layerRows = hasLayerRows ? layers.map((layer) => layer.tensor('layerRows', 2).values) : null
    return { kind: 'soft-prompt', numTokens: shape[0] ?? 0, rows, layerRows }
  }
  for (const key of ['keys', 'values', 'gates']) head.value(key)
  const keys = layers.map((layer) => layer.tensor('keys', 2))
  const hasGates = head.value('gates') !== null
  return {
    kind: 'prefix',
    numTokens: keys[0]?.shape[0] ?? 0,
    keys: keys.map(({ values }) => values),
    values: layers.map((layer) => layer.tensor('values', 2).values),
    positions: head.word('positions', ['shift', 'no-shift'], 'shift'),
    gates: hasGates
      ? layers.map((layer) => {
          const gates = layer.child('gates')
          return { keys: readPooledGate(gates.child('keys')), values: readPooledGate(gates.child('values')) }
        })
      : null,
  }
}

function readInvocation(root: EntryReader, { vocabSize }: DecoderSpec): readonly number[] | null {
  const value = root.value('invocationTokenIds')
  if (value === null) return null
  const isList = Array.isArray(value) && value.every((id) => Number.isInteger(id) && id >= 0 && id < vocabSize)
  if (!isList || value.length === 0) throw root.refuse('invocationTokenIds', `${show(value)} is not a list of token ids`)
  return value as number[]
}
