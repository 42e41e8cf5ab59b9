// Ties the registry of src/errors.ts to the code that throws and to docs/errors.md.

import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { asLorikeetError, ERRORS, LorikeetError } from '../../src/errors.ts'

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..')
const OUTSIDE_REGISTRY = join('src', 'errors.ts')

function sourceTexts(): ReadonlyMap<string, string> {
  const files = ['src', 'bench'].flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' }).map((name) => join(folder, name)),
  )
  const sources = files.filter((file) => file.endsWith('.ts') && file !== OUTSIDE_REGISTRY && !file.includes('/generated/'))
  return new Map(sources.map((file) => [file, readFileSync(join(ROOT, file), 'utf8')]))
}

describe('error registry', () => {
  const texts = sourceTexts()
  for (const code of Object.keys(ERRORS)) {
    it(`${code} is thrown somewhere`, () => {
      assert.ok([...texts.values()].some((text) => text.includes(`'${code}'`)))
    })
  }

  it('is the only source of thrown errors', () => {
    // The console's page runs in a browser, where nobody reads codes.
    const isServers = (file: string) => file.startsWith('src') && !file.startsWith('src/server/console/page/')
    const plain = [...texts].filter(([file, text]) => isServers(file) && /\bthrow new (?!LorikeetError\b)\w+/.test(text))
    assert.deepEqual(
      plain.map(([file]) => file),
      [],
    )
  })

  it('holds statuses of errors', () => {
    for (const { http, grpc } of Object.values(ERRORS)) {
      assert.ok(http >= 400 && http < 600)
      assert.ok(grpc >= 1 && grpc <= 16)
    }
  })
})

describe('LorikeetError', () => {
  it('fills the message from the params and names the field', () => {
    const error = new LorikeetError('FIELD_INVALID', { field: 'top_p', reason: 'must be at most 1' })
    assert.equal(error.message, 'top_p: must be at most 1')
    assert.equal(error.field, 'top_p')
    assert.equal(error.httpStatus, 400)
  })

  it('crosses threads as plain data', () => {
    const error = new LorikeetError('MODEL_NOT_FOUND', { model: 'nobody' }, { field: 'model' })
    const copy = LorikeetError.fromWire(structuredClone(error.toWire()))
    assert.equal(copy.message, error.message)
    assert.equal(copy.code, 'MODEL_NOT_FOUND')
    assert.equal(copy.field, 'model')
  })

  it('wraps what is not ours', () => {
    const wrapped = asLorikeetError(new RangeError('too far'))
    assert.equal(wrapped.code, 'INTERNAL')
    assert.equal(wrapped.message, 'internal error: too far')
    assert.ok(wrapped.cause instanceof RangeError)
    assert.equal(asLorikeetError(wrapped), wrapped)
  })
})
