// No directory is taken for one of another format, whatever wrote it.

import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { detectAdapter } from '../../src/adapter/formats/detect.ts'
import { ADAPTER_FILES } from '../../src/core/adapter-files.ts'
import { goldenModelDir } from '../support/golden.ts'
import { tempDir } from '../support/safetensors-file.ts'
import { TorchSize } from '../support/torch-file.ts'
import {
  dept,
  llmAdapters,
  moePeft,
  openDelta,
  sftDiff,
  writeFiles,
  writeOpenDelta,
  writePeft,
  writeReft,
  writeSft,
} from '../support/writer-dirs.ts'

function written(name: string): string {
  const dir = join(tempDir(), 'adapter')
  mkdirSync(dir)
  writeFileSync(join(dir, name), '{}')
  return dir
}

const fixtures = (root: string): string[] =>
  readdirSync(root, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => join(root, name))

const ADAPTERS = 'test/fixtures/adapters'

const DIRECTORIES: Readonly<Record<string, () => readonly string[]>> = {
  adapterhub: () => fixtures('test/fixtures/adapterhub'),
  'composable-sft': () => [
    writeSft({ diffs: { w: sftDiff([1], []) }, abs: {} }),
    writeSft({ abs: { size: new TorchSize([1]) } }),
  ],
  delta: () => [written('lorikeet_delta.json')],
  native: () => [written('lorikeet_adapter.json')],
  opendelta: () => [
    writeOpenDelta(openDelta('lora', {}, { x: [1] })),
    writeOpenDelta(openDelta('soft_prompt', {}, { 'soft_prompt_layer.soft_embeds': [1, 1] })),
  ],
  peft: () => [
    ...fixtures(ADAPTERS).flatMap(fixtures),
    writePeft(llmAdapters({}, ['mlp.up_proj'])),
    writePeft(dept()),
    writePeft(moePeft('mola', { top_k: 2 }, ['mlp.up_proj'])),
    // A type nobody knows is still PEFT's, and refused by its name.
    writePeft({ config: { peft_type: 'PROMPT_ROUTING' }, tensors: {} }),
  ],
  pyreft: () => [writeReft({ type: 'Loreft', layers: [0] }), writeReft({ type: 'Noreft', layers: [0, 0] })],
}

describe('every directory', () => {
  for (const [format, directories] of Object.entries(DIRECTORIES)) {
    it(`of ${format} is detected as that`, () => {
      for (const dir of directories()) assert.equal(detectAdapter(dir, 'test').format, format, dir)
    })
  }

  it('of a model, or of nothing, is no adapter', () => {
    for (const dir of [goldenModelDir('llama'), writeFiles({ 'config.json': { model_type: 'llama' } }), tempDir()]) {
      assert.throws(() => detectAdapter(dir, 'test'), { code: 'ADAPTER_NOT_FOUND' }, dir)
    }
  })

  it('has a file by which --adapter-dir finds it', () => {
    for (const directories of Object.values(DIRECTORIES)) {
      for (const dir of directories())
        assert.ok(
          readdirSync(dir).some((name) => ADAPTER_FILES.includes(name)),
          dir,
        )
    }
  })
})
