// Of every fixture of every format: no tensor may be missing, at another layer, or there without a use; and none changes the base.

import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { cpSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { compileAdapter } from '../../src/adapter/compile.ts'
import { adapterId } from '../../src/core/ids.ts'
import { LorikeetError } from '../../src/errors.ts'
import type { ModelSource } from '../../src/model/model-source.ts'
import { openModel } from '../../src/model/open-model.ts'
import { openSafetensors } from '../../src/model/safetensors.ts'
import { ADAPTER_ARCHITECTURES, goldenAdapterDir } from '../support/adapter-golden-suite.ts'
import { goldenModelDir } from '../support/golden.ts'
import { HUB_GOLDENS, hubGoldenDir } from '../support/hub-golden-suite.ts'
import type { Tensors } from '../support/model-dir.ts'
import { ORACLE_METHODS } from '../support/oracle/methods.ts'
import { f32, tempDir, writeSafetensors } from '../support/safetensors-file.ts'

interface Fixture {
  readonly name: string
  readonly architecture: string
  readonly dir: string
}

const FIXTURES: readonly Fixture[] = [
  ...ADAPTER_ARCHITECTURES.flatMap((architecture) =>
    readdirSync(goldenAdapterDir(architecture)).map((name) => ({
      name: `${architecture}/${name}`,
      architecture,
      dir: goldenAdapterDir(architecture, name),
    })),
  ),
  ...HUB_GOLDENS.map((name) => ({ name: `AdapterHub ${name}`, architecture: 'llama', dir: hubGoldenDir(name) })),
  ...ORACLE_METHODS.map(({ name, write }) => ({ name: `own format, ${name}`, architecture: 'llama', dir: write() })),
]

/** Tensors stored twice, by fixture and name: a copy of the base's, or of one elsewhere in the file. Without them nothing changes. */
const SECOND_COPIES: readonly RegExp[] = [
  /^llama\/lora_(embed|lmhead) .*[.]base_layer[.]weight$/,
  /^llama\/randlora .*[.]layers[.].*[.]randlora_[AB]$/,
  /^AdapterHub .*[.]layers[.]\d+[.]self_attn[.]prefix_tuning[.]pool[.]/,
  /^AdapterHub seq_bn_gelu_ln .*[.]adapter_down[.]0[.]/,
]

/** Of a large file every n-th tensor is tried, so that the whole stays within seconds. */
const MOST_TRIED = 8

const models = new Map<string, ModelSource>(ADAPTER_ARCHITECTURES.map((name) => [name, openModel(goldenModelDir(name))]))

describe('completeness', () => {
  for (const fixture of FIXTURES) {
    it(fixture.name, () => {
      for (const path of weightFiles(fixture.dir)) {
        const tensors = readTensors(join(fixture.dir, path))
        const refuses = (changed: Tensors, what: string) => assertRefused(fixture, path, changed, what)
        refuses({ ...tensors, 'model.layers.0.unknown.weight': f32([1], [1]) }, 'an unknown tensor')
        const names = Object.keys(tensors)
        const step = Math.ceil(names.length / MOST_TRIED)
        for (const [i, name] of names.entries()) {
          if (i % step !== 0 || isWholeDifference(name, tensors)) continue
          const { [name]: taken, ...others } = tensors
          if (SECOND_COPIES.some((pattern) => pattern.test(`${fixture.name} ${name}`))) {
            assert.equal(compileWith(fixture, path, others), compile(fixture.dir, fixture.architecture), name)
            continue
          }
          refuses(others, `without ${name}`)
          const elsewhere = name.replace(/([.](?:layers|h)[.])\d+[.]/, '$17.')
          if (elsewhere !== name) refuses({ ...others, [elsewhere]: taken! }, `${name} at another layer`)
        }
      }
    })
  }
})

describe('isolation', () => {
  for (const architecture of ADAPTER_ARCHITECTURES) {
    it(`all adapters of ${architecture} leave the base bit-identical`, () => {
      const model = models.get(architecture)!
      const before = fingerprint(model)
      for (const fixture of FIXTURES) if (fixture.architecture === architecture) compile(fixture.dir, architecture)
      assert.equal(fingerprint(model), before)
      assert.equal(fingerprint(openModel(goldenModelDir(architecture))), before)
    })
  }
})

function fingerprint(model: ModelSource): string {
  const hash = createHash('sha256')
  for (const name of model.parameters.keys()) hash.update(name).update(new Uint8Array(bytesOf(model.read(name))))
  return hash.digest('hex')
}

function bytesOf({ buffer, byteOffset, byteLength }: Float32Array): Uint8Array {
  return new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength)
}

/** A delta says which parameters differ by holding them, so that one less is another delta, not a damaged one. */
function isWholeDifference(name: string, tensors: Tensors): boolean {
  return name.endsWith('.delta') && !(name.replace(/delta$/, 'rows') in tensors)
}

/** Returns the digest. */
function compile(dir: string, architecture: string): string {
  return compileAdapter(dir, models.get(architecture)!, adapterId(1), 'test').adapter.digest
}

/** Compiles the fixture with one of its files replaced. */
function compileWith({ dir, architecture }: Fixture, path: string, tensors: Tensors): string {
  const changed = join(tempDir(), 'adapter')
  cpSync(dir, changed, { recursive: true, filter: (source) => !source.includes('expected.') })
  writeSafetensors(join(changed, path), tensors)
  try {
    return compile(changed, architecture)
  } finally {
    rmSync(changed, { recursive: true })
  }
}

/** Refused by a coded error that names a field. */
function assertRefused(fixture: Fixture, path: string, tensors: Tensors, what: string): void {
  try {
    compileWith(fixture, path, tensors)
  } catch (error) {
    assert.ok(error instanceof LorikeetError && error.code === 'ADAPTER_REFUSED', `${fixture.name}, ${what}: ${error}`)
    assert.ok(error.field, `${fixture.name}, ${what}: no field`)
    return
  }
  assert.fail(`${fixture.name} is served ${what}`)
}

function weightFiles(dir: string): readonly string[] {
  return readdirSync(dir, { recursive: true, encoding: 'utf8' }).filter(
    (path) => path.endsWith('.safetensors') && !path.endsWith('expected.safetensors') && statSync(join(dir, path)).isFile(),
  )
}

function readTensors(path: string): Tensors {
  const file = readFileSync(path)
  const tensors: Tensors = {}
  for (const [key, { dtype, shape, byteOffset, byteLength }] of openSafetensors(path).tensors) {
    tensors[key] = { dtype, shape, data: file.subarray(byteOffset, byteOffset + byteLength) }
  }
  return tensors
}
