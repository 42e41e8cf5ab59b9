import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import { Ajv2020 } from 'ajv/dist/2020.js'
import { compileAdapter } from '../../src/adapter/compile.ts'
import { digestOf } from '../../src/adapter/digest.ts'
import type { CompiledAdapter } from '../../src/adapter/primitive.ts'
import { promptCouplingOf } from '../../src/adapter/prompt-coupling-of.ts'
import { adapterId } from '../../src/core/ids.ts'
import { LorikeetError } from '../../src/errors.ts'
import { openModel } from '../../src/model/open-model.ts'
import { goldenModelDir } from '../support/golden.ts'
import { writeJson, writeNative } from '../support/native-file.ts'
import { randomEverything, randomPrefix, randomSoftPrompt } from '../support/random-adapter.ts'
import { everyKind } from '../support/random-primitives.ts'

const model = openModel(goldenModelDir('llama'))
const hidden = model.spec.hiddenSize

const adapters: readonly CompiledAdapter[] = [
  ...everyKind(model),
  randomEverything(model, 1),
  randomPrefix(model, 2, 5),
  { ...randomSoftPrompt(model, 3, 4), invocationTokenIds: [3, 1] },
]

const schema = JSON.parse(readFileSync('docs/adapter-format.schema.json', 'utf8'))
const validate = new Ajv2020({ allErrors: true }).compile(schema)

type Entry = Record<string, unknown>

/** The error that a change of the file brings. */
function refusalOf(name: string, change: (json: { program: Entry[] } & Entry) => void): LorikeetError {
  const { dir, json } = writeNative(adapters.find((adapter) => adapter.name === name)!, hidden)
  change(json as { program: Entry[] } & Entry)
  writeJson(dir, json)
  try {
    compileAdapter(dir, model, adapterId(1), 'test')
  } catch (thrown) {
    if (thrown instanceof LorikeetError) return thrown
    throw thrown
  }
  assert.fail(`${name} is refused`)
}

describe('the native format', () => {
  for (const { name, sites, virtualTokens, invocationTokenIds } of adapters) {
    it(`gives back ${name} as it was written, and follows the schema`, () => {
      const { dir, json } = writeNative(adapters.find((adapter) => adapter.name === name)!, hidden)
      const { adapter } = compileAdapter(dir, model, adapterId(1), name)
      assert.deepEqual([...adapter.sites.keys()].sort(), [...sites.keys()].sort())
      assert.equal(adapter.digest, digestOf(sites, invocationTokenIds, virtualTokens))
      assert.equal(adapter.promptCoupling, promptCouplingOf(sites, virtualTokens))
      assert.ok(validate(json), JSON.stringify(validate.errors?.slice(0, 3)))
    })
  }

  it('has an entry of its schema for every primitive and knows no other', () => {
    const kinds = new Set(adapters.flatMap(({ sites }) => [...sites.values()].flat().map(({ kind }) => kind)))
    const described = Object.keys(schema.$defs).filter((name) => schema.$defs[name].properties?.primitive !== undefined)
    assert.deepEqual(described.sort(), [...kinds].sort())
  })

  it('repeats an entry for the layers it names', () => {
    const { dir, json } = writeNative(adapters.find(({ name }) => name === 'kron')!, hidden)
    const [first] = (json['program'] as Entry[]).filter(({ site }) => site === 'layers.0.q')
    writeJson(dir, { ...json, program: [...(json['program'] as Entry[]), { ...first, site: 'layers.{layer}.q', layers: [] }] })
    const { adapter } = compileAdapter(dir, model, adapterId(1), 'test')
    assert.equal(adapter.sites.get('layers.0.q')!.length, 1)
    const everywhere = refusalOf('kron', (file) => {
      file.program = [{ ...first, site: 'layers.{layer}.q' }]
    })
    // Tensors of the other entries are now named by nothing, so the expanded entry itself was read.
    assert.match(everywhere.message, /named by no entry/)
  })

  it('is refused by the key that is wrong', () => {
    assert.equal(refusalOf('kron', (file) => Object.assign(file, { version: 2 })).field, 'version')
    assert.match(refusalOf('kron', (file) => Object.assign(file, { extra: 1 })).field!, /extra/)
    assert.match(refusalOf('kron', (file) => Object.assign(file.program[1]!, { typo: 1 })).field!, /program\[1\]\.typo/)
    assert.match(refusalOf('kron', (file) => Object.assign(file.program[0]!, { left: 'gone' })).message, /gone/)
    assert.match(
      refusalOf('kron', (file) => Object.assign(file.program[0]!, { site: 'layers.0' })).field!,
      /program\[0\]\.site/,
    )
    assert.match(refusalOf('kron', (file) => Object.assign(file.program[0]!, { primitive: 'magic' })).field!, /primitive/)
    assert.match(refusalOf('kron', (file) => Object.assign(file.program[0]!, { scale: 'x y' })).message, /x y/)
    assert.match(refusalOf('kron', (file) => file.program.splice(0, 1)).message, /named by no entry/)
    assert.match(refusalOf('kron', (file) => Object.assign(file, { program: 'all' })).field!, /program/)
    assert.match(refusalOf('kron', (file) => Object.assign(file, { invocationTokenIds: [-1] })).field!, /invocationTokenIds/)
  })
})
