// Says what wrote an adapter directory, from file names and two keys of its config. Reads no weights.

import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { LorikeetError } from '../../errors.ts'

/** An adapter directory of HF PEFT (https://github.com/huggingface/peft). */
export interface PeftDirectory {
  readonly format: 'peft'
  readonly config: Readonly<Record<string, unknown>>
  /** `adapter_model.safetensors`, or the `.bin` older writers made. */
  readonly weightsPath: string
}

export type AdapterDirectory = PeftDirectory

const CONFIG_FILE = 'adapter_config.json'
const WEIGHTS_FILE = 'adapter_model.safetensors'

/** Real configs are a few KiB; per-module patterns of a large model reach some hundred. The rest is not a config. */
const MAX_CONFIG_BYTES = 16 * 2 ** 20

/** Throws ADAPTER_NOT_FOUND where there is no adapter, ADAPTER_REFUSED where it is none that can be read here. */
export function detectAdapter(dir: string, name: string): AdapterDirectory {
  const configPath = join(dir, CONFIG_FILE)
  if (!isFile(configPath)) {
    const other = foreignWriter(dir)
    if (other === null) throw new LorikeetError('ADAPTER_NOT_FOUND', { name, path: dir })
    throw refuse(name, other.file, other.reason)
  }
  const config = readConfig(configPath, name)
  if (typeof config['peft_type'] === 'string') return { format: 'peft', config, weightsPath: findWeights(dir, name) }
  if (typeof config['config'] === 'object' && typeof config['model_class'] === 'string') {
    throw refuse(name, CONFIG_FILE, 'written by AdapterHub adapters, which this version cannot load; use an HF PEFT adapter')
  }
  throw refuse(name, 'peft_type', `missing from ${CONFIG_FILE}; only adapters written by HF PEFT can be loaded`)
}

function readConfig(path: string, name: string): Record<string, unknown> {
  let parsed: unknown
  try {
    if (statSync(path).size > MAX_CONFIG_BYTES) throw refuse(name, CONFIG_FILE, `is larger than ${MAX_CONFIG_BYTES} bytes`)
    parsed = JSON.parse(readFileSync(path, 'utf8'))
  } catch (cause) {
    if (cause instanceof LorikeetError) throw cause
    throw refuse(name, CONFIG_FILE, `cannot be read (${cause instanceof Error ? cause.message : String(cause)})`)
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) {
    throw refuse(name, CONFIG_FILE, 'is not a JSON object')
  }
  return parsed as Record<string, unknown>
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

function foreignWriter(dir: string): { file: string; reason: string } | null {
  if (isFile(join(dir, 'adapter_fusion_config.json'))) {
    return { file: 'adapter_fusion_config.json', reason: 'AdapterHub fusions cannot be loaded; use an HF PEFT adapter' }
  }
  if (isFile(join(dir, WEIGHTS_FILE))) {
    return { file: CONFIG_FILE, reason: 'the file is missing, and without it the weights have no meaning' }
  }
  return null
}

function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() ?? false
}

function refuse(name: string, field: string, reason: string): LorikeetError {
  return new LorikeetError('ADAPTER_REFUSED', { name, field, reason }, { field })
}
