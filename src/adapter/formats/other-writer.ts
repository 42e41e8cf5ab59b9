// Directories of writers that are neither HF PEFT nor AdapterHub, told apart by file names and keys of `config.json`. Reads no weights.

import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { SFT_FILE, type SftDirectory } from './composable-sft/compile-sft.ts'
import { isFile, readJsonObject } from './json-file.ts'
import type { OpenDeltaDirectory } from './opendelta/compile-opendelta.ts'
import type { Refuse } from './peft/refuse.ts'
import type { ReftDirectory } from './pyreft/compile-pyreft.ts'

export type OtherDirectory = SftDirectory | ReftDirectory | OpenDeltaDirectory

const CONFIG_FILE = 'config.json'

/** Null where no writer known here made the directory. Throws ADAPTER_REFUSED where one did, and it cannot be read. */
export function readOtherDirectory(dir: string, refuse: Refuse): OtherDirectory | null {
  if (isFile(join(dir, SFT_FILE))) return { format: 'composable-sft', weightsPath: join(dir, SFT_FILE) }
  const configPath = join(dir, CONFIG_FILE)
  if (!isFile(configPath)) return null
  const config = readJsonObject(configPath, CONFIG_FILE, refuse)
  if ('representations' in config && 'intervention_types' in config) {
    const names = readdirSync(dir).filter((name) => name.endsWith('.bin'))
    return { format: 'pyreft', config, weightsPaths: new Map(names.map((name) => [name, join(dir, name)])) }
  }
  const weightsPath = join(dir, 'pytorch_model.bin')
  if (typeof config['delta_type'] === 'string') {
    if (!isFile(weightsPath)) throw refuse('pytorch_model.bin', 'the file is missing, so there are no weights to serve')
    return { format: 'opendelta', config, weightsPath }
  }
  return null
}
