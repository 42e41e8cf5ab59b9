// Says what wrote an adapter directory, from file names and two keys of its config. Reads no weights.

import { join } from 'node:path'
import { LorikeetError } from '../../errors.ts'
import { type HubSetup, readHubDirectory } from './adapterhub/adapterhub-directory.ts'
import type { DeltaDirectory } from './delta/compile-delta.ts'
import { isFile, readJsonObject } from './json-file.ts'
import type { NativeDirectory } from './native/compile-native.ts'
import { type OtherDirectory, readOtherDirectory } from './other-writer.ts'
import type { Refuse } from './peft/refuse.ts'

/** An adapter directory of HF PEFT (https://github.com/huggingface/peft). */
export interface PeftDirectory {
  readonly format: 'peft'
  readonly config: Readonly<Record<string, unknown>>
  /** `adapter_model.safetensors`, or the `.bin` older writers made. */
  readonly weightsPath: string
}

/** A directory of AdapterHub's library (https://github.com/adapter-hub/adapters). */
export interface AdapterHubDirectory {
  readonly format: 'adapterhub'
  readonly setup: HubSetup
}

export type AdapterDirectory = PeftDirectory | AdapterHubDirectory | NativeDirectory | DeltaDirectory | OtherDirectory

const CONFIG_FILE = 'adapter_config.json'
const NATIVE_FILE = 'lorikeet_adapter.json'
const DELTA_FILE = 'lorikeet_delta.json'
const WEIGHTS_FILE = 'adapter_model.safetensors'

/** Throws ADAPTER_NOT_FOUND where there is no adapter, ADAPTER_REFUSED where it is none that can be read here. */
export function detectAdapter(dir: string, name: string): AdapterDirectory {
  const refuseHere: Refuse = (field, reason) => refuse(name, field, reason)
  const nativePath = join(dir, NATIVE_FILE)
  if (isFile(nativePath)) {
    const adapter = readJsonObject(nativePath, NATIVE_FILE, refuseHere)
    return { format: 'native', adapter, weightsPath: join(dir, 'adapter.safetensors') }
  }
  const deltaPath = join(dir, DELTA_FILE)
  if (isFile(deltaPath)) {
    const header = readJsonObject(deltaPath, DELTA_FILE, refuseHere)
    return { format: 'delta', header, weightsPath: join(dir, 'delta.safetensors') }
  }
  const setup = readHubDirectory(dir, refuseHere)
  if (setup !== null) return { format: 'adapterhub', setup }
  const configPath = join(dir, CONFIG_FILE)
  if (!isFile(configPath)) {
    const other = readOtherDirectory(dir, refuseHere)
    if (other !== null) return other
    if (!isFile(join(dir, WEIGHTS_FILE))) throw new LorikeetError('ADAPTER_NOT_FOUND', { name, path: dir })
    throw refuse(name, CONFIG_FILE, 'the file is missing, and without it the weights have no meaning')
  }
  const config = readJsonObject(configPath, CONFIG_FILE, refuseHere)
  if (typeof config['peft_type'] === 'string') return { format: 'peft', config, weightsPath: findWeights(dir, name) }
  throw refuse(name, 'peft_type', `missing from ${CONFIG_FILE}; neither HF PEFT nor AdapterHub wrote it`)
}

/** Safetensors wins over a pickle beside it, as in the reference. */
function findWeights(dir: string, name: string): string {
  const path = join(dir, WEIGHTS_FILE)
  if (isFile(path)) return path
  const pickle = join(dir, 'adapter_model.bin')
  if (isFile(pickle)) return pickle
  if (isFile(join(dir, `${WEIGHTS_FILE}.index.json`))) {
    throw refuse(name, `${WEIGHTS_FILE}.index.json`, `sharded weights are not supported; save them as one ${WEIGHTS_FILE}`)
  }
  throw refuse(name, WEIGHTS_FILE, 'the file is missing, so there are no weights to serve')
}

function refuse(name: string, field: string, reason: string): LorikeetError {
  return new LorikeetError('ADAPTER_REFUSED', { name, field, reason }, { field })
}
