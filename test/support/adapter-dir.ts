// Golden adapters with something changed, written to a directory of their own.

import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { type CompileResult, compileAdapter } from '../../src/adapter/compile.ts'
import { adapterId } from '../../src/core/ids.ts'
import type { ModelSource } from '../../src/model/model-source.ts'
import { openModel } from '../../src/model/open-model.ts'
import { openSafetensors } from '../../src/model/safetensors.ts'
import { goldenModelDir } from './golden.ts'
import type { Json, Tensors } from './model-dir.ts'
import { tempDir, writeSafetensors } from './safetensors-file.ts'

export interface AdapterChange {
  /** Merged into adapter_config.json; undefined removes a key. */
  readonly config?: Json
  readonly tensors?: (tensors: Tensors) => Tensors
}

/** `name` is `architecture/adapter` of test/fixtures/adapters. */
export function readAdapterTensors(name: string): Tensors {
  const path = join(import.meta.dirname, '../fixtures/adapters', name, 'adapter_model.safetensors')
  const file = readFileSync(path)
  const tensors: Tensors = {}
  for (const [key, { dtype, shape, byteOffset, byteLength }] of openSafetensors(path).tensors) {
    tensors[key] = { dtype, shape, data: file.subarray(byteOffset, byteOffset + byteLength) }
  }
  return tensors
}

/** Returns the directory. */
export function writeChangedAdapter(name: string, change: AdapterChange = {}): string {
  const dir = join(tempDir(), 'adapter')
  mkdirSync(dir)
  const source = join(import.meta.dirname, '../fixtures/adapters', name, 'adapter_config.json')
  const config = { ...JSON.parse(readFileSync(source, 'utf8')), ...change.config }
  writeFileSync(join(dir, 'adapter_config.json'), JSON.stringify(config))
  const tensors = readAdapterTensors(name)
  writeSafetensors(join(dir, 'adapter_model.safetensors'), change.tensors?.(tensors) ?? tensors)
  return dir
}

const models = new Map<string, ModelSource>()

export function goldenModel(architecture: string): ModelSource {
  const model = models.get(architecture) ?? openModel(goldenModelDir(architecture))
  models.set(architecture, model)
  return model
}

/** Compiles for the golden model of the adapter's architecture. */
export function compileChanged(name: string, change: AdapterChange = {}): CompileResult {
  const [architecture = ''] = name.split('/')
  const dir = writeChangedAdapter(name, change)
  try {
    return compileAdapter(dir, goldenModel(architecture), adapterId(1), 'test')
  } finally {
    rmSync(dirname(dir), { recursive: true })
  }
}
