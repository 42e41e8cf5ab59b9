// What a directory written by AdapterHub's library holds: one adapter, or a composition with its members in folders beside its setup
// (https://github.com/adapter-hub/adapters, `save_adapter` and `save_adapter_setup`). Reads no weights.

import { join } from 'node:path'
import { isJsonObject, type JsonObject } from '../../../core/json.ts'
import { isFile, readJsonObject } from '../json-file.ts'
import type { Refuse } from '../peft/refuse.ts'

/** One adapter. */
export interface HubMember {
  readonly type: 'single'
  /** As its tensors name it. */
  readonly name: string
  readonly config: JsonObject
  /** Null where the file does not say. */
  readonly hiddenSize: number | null
  /** `adapters.1.2.0` → [1, 2, 0]; null before versions were written. */
  readonly version: readonly number[] | null
  readonly weightsPath: string
  /** Head saved with the adapter, if any. */
  readonly headPath: string | null
}

/** Several adapters at the same hooks. */
export interface HubBlock {
  readonly type: 'stack' | 'average' | 'fuse'
  readonly children: readonly HubSetup[]
  /** Average only, one a child. */
  readonly weights: readonly number[]
  /** Fuse only. */
  readonly fusion: HubFusion | null
}

export interface HubFusion {
  /** Members by name, in the order of its keys. */
  readonly name: string
  readonly config: JsonObject
  readonly weightsPath: string
}

export type HubSetup = HubMember | HubBlock

const CONFIG_FILE = 'adapter_config.json'
const SETUP_FILE = 'adapter_setup.json'
const FUSION_FILE = 'adapter_fusion_config.json'

/** The library nests blocks two deep; more is not a setup it can have written. */
const MAX_DEPTH = 3

/** Null where the directory is not of this format. Throws ADAPTER_REFUSED where it is, and cannot be read. */
export function readHubDirectory(dir: string, refuse: Refuse): HubSetup | null {
  if (isFile(join(dir, SETUP_FILE))) {
    const setup = readJsonObject(join(dir, SETUP_FILE), SETUP_FILE, refuse)['adapter_setup']
    return readBlock(dir, setup, refuse, 0)
  }
  const path = join(dir, CONFIG_FILE)
  if (isFile(path)) {
    const config = readJsonObject(path, CONFIG_FILE, refuse)
    return isJsonObject(config['config']) && typeof config['model_class'] === 'string' ? memberOf(dir, config, refuse) : null
  }
  if (!isFile(join(dir, FUSION_FILE))) return null
  throw refuse(FUSION_FILE, `a fusion is served with its members: save it by save_adapter_setup, which writes ${SETUP_FILE}`)
}

function readBlock(dir: string, value: unknown, refuse: Refuse, depth: number): HubSetup {
  if (!isJsonObject(value) || !Array.isArray(value['children']) || depth > MAX_DEPTH) {
    throw refuse(SETUP_FILE, 'is not a setup of adapters as save_adapter_setup writes it')
  }
  const { type, children: values } = value
  if (type === 'single') return readMember(dir, values[0], refuse)
  const children = values.map((child: unknown) => readBlock(dir, child, refuse, depth + 1))
  if (children.length === 0) throw refuse(SETUP_FILE, `${String(type)} has no members`)
  switch (type) {
    case 'Stack':
      return { type: 'stack', children, weights: [], fusion: null }
    case 'Average':
      return { type: 'average', children, weights: weightsOf(value, children.length, refuse), fusion: null }
    case 'Fuse':
      return { type: 'fuse', children, weights: [], fusion: readFusion(dir, children, refuse) }
    case 'Parallel':
    case 'BatchSplit':
      throw refuse(SETUP_FILE, `${type} gives each row its own adapter: register the members and name one in each request`)
    default:
      throw refuse(SETUP_FILE, `the block ${String(type)} is not served`)
  }
}

function weightsOf({ kwargs }: JsonObject, count: number, refuse: Refuse): readonly number[] {
  const weights = isJsonObject(kwargs) ? kwargs['weights'] : undefined
  if (!Array.isArray(weights) || weights.length !== count || !weights.every((weight) => Number.isFinite(weight))) {
    throw refuse(`${SETUP_FILE} weights`, `is not a list of ${count} numbers`)
  }
  return weights as number[]
}

function readMember(dir: string, name: unknown, refuse: Refuse): HubMember {
  // A name is a folder here, so it must not lead out of this one.
  if (typeof name !== 'string' || !isFolderName(name)) throw refuse(SETUP_FILE, `${String(name)} is not the name of a member`)
  const path = join(dir, name, CONFIG_FILE)
  if (!isFile(path)) throw refuse(`${name}/${CONFIG_FILE}`, 'the file is missing, and the setup names this member')
  return memberOf(join(dir, name), readJsonObject(path, `${name}/${CONFIG_FILE}`, refuse), refuse)
}

function memberOf(dir: string, file: JsonObject, refuse: Refuse): HubMember {
  const { config, name, hidden_size: hiddenSize } = file
  if (!isJsonObject(config)) throw refuse('config', 'is not an object')
  if (typeof name !== 'string' || name === '') throw refuse('name', 'is missing; the tensors are found by it')
  return {
    type: 'single',
    name,
    config,
    hiddenSize: typeof hiddenSize === 'number' ? hiddenSize : null,
    version: versionOf(file['version']),
    weightsPath: findWeights(dir, ['adapter.safetensors', 'pytorch_adapter.bin'], refuse),
    headPath: firstFile(dir, ['model_head.safetensors', 'pytorch_model_head.bin']),
  }
}

function readFusion(dir: string, children: readonly HubSetup[], refuse: Refuse): HubFusion {
  const names = children.map((child) => {
    if (child.type !== 'single') throw refuse(SETUP_FILE, 'a fusion of blocks is not served; fuse adapters')
    return child.name
  })
  const name = names.join(',')
  if (!isFolderName(name)) throw refuse(SETUP_FILE, `${name} is not the name of a fusion`)
  const path = join(dir, name, FUSION_FILE)
  if (!isFile(path)) throw refuse(`${name}/${FUSION_FILE}`, 'the file is missing, and the setup fuses these members')
  const { config } = readJsonObject(path, `${name}/${FUSION_FILE}`, refuse)
  if (!isJsonObject(config)) throw refuse(`${name}/${FUSION_FILE}`, 'has no config')
  const weightsPath = findWeights(
    join(dir, name),
    ['model_adapter_fusion.safetensors', 'pytorch_model_adapter_fusion.bin'],
    refuse,
  )
  return { name, config, weightsPath }
}

function versionOf(value: unknown): readonly number[] | null {
  const match = typeof value === 'string' ? /^adapters\.(\d+)\.(\d+)\.(\d+)/.exec(value) : null
  return match === null ? null : match.slice(1).map(Number)
}

function findWeights(dir: string, names: readonly [string, ...string[]], refuse: Refuse): string {
  const path = firstFile(dir, names)
  if (path === null) throw refuse(names[0], 'the file is missing, so there are no weights to serve')
  return path
}

/** Safetensors wins over a pickle beside it, as in the library. */
function firstFile(dir: string, names: readonly string[]): string | null {
  const found = names.find((name) => isFile(join(dir, name)))
  return found === undefined ? null : join(dir, found)
}

function isFolderName(name: string): boolean {
  return name !== '' && name !== '.' && name !== '..' && !/[/\\\0]/.test(name)
}
