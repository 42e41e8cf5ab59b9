// The README promises exactly what the code serves.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { PEFT_TYPES } from '../../src/adapter/formats/peft/peft-types.ts'
import { findArchitecture } from '../../src/model/architectures/find-architecture.ts'
import { ConfigReader } from '../../src/model/config-reader.ts'

const readme = readFileSync(resolve(dirname(fileURLToPath(import.meta.url)), '../../README.md'), 'utf8')

/** Words in backticks of the paragraphs from the one that begins with `heading`. */
function codeWords(heading: string, numParagraphs: number): readonly string[] {
  const part = readme.slice(readme.indexOf(heading)).split('\n\n').slice(0, numParagraphs).join('\n')
  return [...part.matchAll(/`([^`]+)`/g)].map((match) => match[1]!)
}

it('lists every adapter kind, and no other', () => {
  const listed = new Set(codeWords('<!-- kinds', 2))
  assert.deepEqual([...listed].sort(), Object.keys(PEFT_TYPES).sort(), 'run npm run docs')
})

it('lists every model family, and no other', () => {
  const served = /must be one of ([a-z0-9_, ]+)/.exec(refusalOfUnknownModel())?.[1]?.split(', ') ?? []
  assert.ok(served.length > 5)
  assert.deepEqual([...new Set(codeWords('**Models**', 1))].filter((word) => word !== 'model_type').sort(), served.sort())
})

function refusalOfUnknownModel(): string {
  try {
    findArchitecture(new ConfigReader({ model_type: 'unheard-of' }))
  } catch (error) {
    return error instanceof Error ? error.message : ''
  }
  return ''
}
