// Files that other versions of a library, or other machines, write differently.

import assert from 'node:assert/strict'
import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { it } from 'node:test'
import { compileAdapter } from '../../src/adapter/compile.ts'
import { adapterId } from '../../src/core/ids.ts'
import { compileChanged, goldenModel } from '../support/adapter-dir.ts'
import { hubGoldenDir } from '../support/hub-golden-suite.ts'
import { f32, type TensorData, tempDir } from '../support/safetensors-file.ts'

function compileVersion(version: string) {
  const dir = join(tempDir(), 'lora')
  cpSync(hubGoldenDir('lora'), dir, { recursive: true })
  const path = join(dir, 'adapter_config.json')
  writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, 'utf8')), version }))
  const { adapter, warnings } = compileAdapter(dir, goldenModel('llama'), adapterId(1), 'test')
  const scales = [...adapter.sites.values()].flat().map((each) => (each.kind === 'low-rank' ? each.scale : null))
  return { scales: [...new Set(scales)], warnings }
}

it('AdapterHub before 1.1 trained without alpha, and is served so, with a warning', () => {
  const now = compileVersion('adapters.1.1.0')
  assert.deepEqual(now, { scales: [2], warnings: [] })
  const old = compileVersion('adapters.1.0.1')
  assert.deepEqual(old.scales, [1])
  assert.match(old.warnings.join(), /alpha 8 is read as 4/)
})

it('SHIRA indices may be stored as floating point', () => {
  const asFloats = ({ shape, data }: TensorData) => f32(shape, [...new Int32Array(Uint8Array.from(data).buffer)])
  const changed = compileChanged('llama/shira', {
    tensors: (tensors) =>
      Object.fromEntries(
        Object.entries(tensors).map(([key, tensor]) => {
          if (!key.endsWith('shira_indices')) return [key, tensor]
          assert.equal(tensor.dtype, 'I32')
          return [key, asFloats(tensor)]
        }),
      ),
  })
  assert.equal(changed.adapter.digest, compileChanged('llama/shira').adapter.digest)
})
