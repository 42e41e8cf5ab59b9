// docs/peft.md, the registries of formats and the tests say the same.

import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { compileAdapter } from '../../src/adapter/compile.ts'
import { HUB_METHODS } from '../../src/adapter/formats/adapterhub/compile-adapterhub.ts'
import { detectAdapter } from '../../src/adapter/formats/detect.ts'
import { PEFT_TYPES, REFUSED_PEFT_TYPES } from '../../src/adapter/formats/peft/peft-types.ts'
import { replaceGenerated } from '../../src/cli/docs-tables.ts'
import { adapterId } from '../../src/core/ids.ts'
import { goldenModel } from '../support/adapter-dir.ts'
import { goldenAdapterDir } from '../support/adapter-golden-suite.ts'
import { HUB_GOLDENS, hubGoldenDir } from '../support/hub-golden-suite.ts'
import { ORACLE_METHODS } from '../support/oracle/methods.ts'

interface Row {
  readonly name: string
  readonly primitives: readonly string[]
  readonly tests: readonly string[]
}

interface MethodRow extends Row {
  readonly number: number
  readonly state: 'served' | 'partly' | 'not served'
  readonly how: string
  readonly formats: readonly string[]
}

interface Survey {
  readonly methods: readonly MethodRow[]
  readonly peftTypes: readonly Row[]
  readonly adapterHub: readonly Row[]
  readonly writers: readonly Row[]
}

const ROOT = join(import.meta.dirname, '../..')
const renderer = await import(join(ROOT, 'scripts/peft-survey.mjs'))
const survey: Survey = renderer.SURVEY
const schema = JSON.parse(readFileSync(join(ROOT, 'docs/adapter-format.schema.json'), 'utf8'))
const KNOWN_PRIMITIVES = [...schemaPrimitives(), 'soft-prompt', 'prefix']

const compositions: readonly string[] = ['union', 'Stack', 'Average', 'Fuse']

describe('docs/peft.md', () => {
  it('is what npm run docs writes', () => {
    const page = readFileSync(join(ROOT, 'docs/peft.md'), 'utf8')
    assert.equal(page, replaceGenerated(page, 'methods', renderer.methodTable()))
    assert.equal(page, replaceGenerated(page, 'peft types', renderer.peftTypeTable(REFUSED_PEFT_TYPES)))
    assert.equal(page, replaceGenerated(page, 'AdapterHub', renderer.adapterHubTable()))
    assert.equal(page, replaceGenerated(page, 'writers', renderer.writerTable()))
  })

  it('has one row for each of the 77 methods, each peft_type, and each architecture of AdapterHub', () => {
    assert.deepEqual(
      survey.methods.map(({ number }) => number),
      Array.from({ length: 77 }, (_, i) => i + 1),
    )
    assert.equal(new Set(survey.methods.map(({ name }) => name)).size, 77)
    const types = [...Object.keys(PEFT_TYPES), ...Object.keys(REFUSED_PEFT_TYPES)]
    assert.deepEqual(survey.peftTypes.map(({ name }) => name).sort(), types.sort())
    const architectures = [...Object.keys(HUB_METHODS), ...compositions]
    assert.deepEqual(survey.adapterHub.map(({ name }) => name).sort(), architectures.sort())
  })

  it('names a test for what is served, and a reason for what is not', () => {
    for (const { name, state, how, tests, formats } of survey.methods) {
      assert.equal(tests.length > 0 && formats.length > 0, state !== 'not served', name)
      if (state !== 'served') assert.notEqual(how, '', name)
    }
    for (const { name, tests } of [...survey.peftTypes, ...survey.adapterHub]) {
      assert.equal(tests.length > 0, !(name in REFUSED_PEFT_TYPES), name)
    }
  })

  it('uses every primitive', () => {
    const named = new Set(
      [...survey.methods, ...survey.peftTypes, ...survey.adapterHub].flatMap(({ primitives }) => primitives),
    )
    assert.deepEqual([...named].sort(), KNOWN_PRIMITIVES.sort())
  })

  for (const row of survey.methods) {
    it(`${row.name}: its tests exist and load from what the row says`, () => {
      const { formats } = checkTests(row)
      for (const format of formats) assert.ok(row.formats.includes(format), `${format} is not in the row`)
      const hasOtherProof = row.tests.some((test) => test.includes('#'))
      for (const format of row.formats) assert.ok(formats.has(format) || hasOtherProof, `no test loads from ${format}`)
    })
  }

  for (const row of survey.peftTypes) {
    it(`${row.name}: its tests exist and are of that type`, () => {
      const { kinds } = checkTests(row)
      const ofAnother = row.name === 'TRAINABLE_TOKENS' ? ['LORA'] : []
      for (const kind of kinds) assert.ok([row.name, ...ofAnother].includes(kind), kind)
    })
  }

  for (const row of survey.adapterHub) it(`${row.name} of AdapterHub: its tests exist`, () => void checkTests(row))
  for (const row of survey.writers) it(`the writer ${row.name}: its tests exist`, () => void checkTests(row))
})

describe('tests of PEFT methods', () => {
  it('are all in the tables', () => {
    const named = new Set([...survey.methods, ...survey.peftTypes, ...survey.adapterHub].flatMap(({ tests }) => tests))
    for (const { name } of ORACLE_METHODS) assert.ok(named.has(`oracle:${name}`), name)
    for (const name of HUB_GOLDENS) assert.ok(named.has(`hub:${name}`), name)
  })
})

/** Formats and kinds of the adapters that the tests of a row load; what the row names as primitives is found in them, and the reverse. */
function checkTests({ name, primitives, tests }: Row): { formats: ReadonlySet<string>; kinds: ReadonlySet<string> } {
  const [formats, kinds, found] = [new Set<string>(), new Set<string>(), new Set<string>()]
  for (const test of tests) {
    const [file = '', title] = test.split('#')
    if (title !== undefined) {
      assert.ok(readFileSync(join(ROOT, file), 'utf8').includes(title), test)
      continue
    }
    const { dir, architecture } = directoryOf(test)
    const { adapter } = compileAdapter(dir, goldenModel(architecture), adapterId(1), name)
    formats.add(existsSync(join(dir, 'lorikeet_mixture.json')) ? 'mixture' : detectAdapter(dir, name).format)
    kinds.add(adapter.kind)
    for (const { kind } of [...adapter.sites.values()].flat()) found.add(kind)
    if (adapter.virtualTokens !== null) found.add(adapter.virtualTokens.kind)
  }
  const hasOtherProof = tests.some((test) => test.includes('#'))
  for (const primitive of primitives) assert.ok(hasOtherProof || found.has(primitive), `${primitive} is in none of its tests`)
  return { formats, kinds }
}

function directoryOf(test: string): { readonly dir: string; readonly architecture: string } {
  const [scheme, name = ''] = test.split(/:(.*)/s)
  if (scheme === 'hub') return { dir: hubGoldenDir(name), architecture: 'llama' }
  if (scheme === 'peft') {
    const [architecture = ''] = name.split('/')
    return { dir: goldenAdapterDir(architecture, name.slice(architecture.length + 1)), architecture }
  }
  const method = ORACLE_METHODS.find((each) => each.name === name)
  assert.ok(scheme === 'oracle' && method !== undefined, `${test} is no test`)
  return { dir: method.write(), architecture: 'llama' }
}

function schemaPrimitives(): readonly string[] {
  return Object.keys(schema.$defs).filter((name) => schema.$defs[name].properties?.primitive !== undefined)
}
