import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { readTensorF32, readTensorI32 } from '../../src/model/safetensors.ts'
import { openTorchDictionary, openTorchFile, type TorchDictionary } from '../../src/model/torch-file.ts'
import { NumpyInt, TorchSize, tensor, writeTorchFile } from '../support/torch-file.ts'

const FIXTURES = 'test/fixtures/torch'
const scratch = mkdtempSync(join(tmpdir(), 'lorikeet-torch-'))
after(() => rmSync(scratch, { recursive: true }))

function refusal(path: string): { code: string; message: string } {
  try {
    openTorchFile(path)
  } catch (thrown) {
    return thrown as { code: string; message: string }
  }
  assert.fail(`${path} was read`)
}

describe('torch files', () => {
  it('give every tensor, views of shared data included', () => {
    const tensors = openTorchFile(join(FIXTURES, 'state.bin'))
    const floats = (name: string) => [...readTensorF32(tensors.get(name)!)]
    assert.deepEqual([...tensors.keys()], ['f32', 'second_half', 'f16', 'bf16', 'i64', 'scalar', 'parameter', 'empty'])
    assert.deepEqual(tensors.get('f32')!.shape, [3, 4])
    assert.deepEqual(
      floats('f32'),
      Array.from({ length: 12 }, (_, i) => i / 8),
    )
    assert.deepEqual(floats('second_half'), [6, 7, 8, 9, 10, 11])
    assert.deepEqual(floats('f16'), [0.5, -2])
    assert.deepEqual(floats('bf16'), [1.5, -3])
    assert.deepEqual([...readTensorI32(tensors.get('i64')!)], [1, -2, 2 ** 31 - 1])
    assert.deepEqual(tensors.get('scalar')!.shape, [])
    assert.deepEqual(floats('scalar'), [7])
    assert.deepEqual(floats('parameter'), [1, 1, 1, 1])
    assert.deepEqual(floats('empty'), [])
  })

  it('run nothing', () => {
    const { code, message } = refusal(join(FIXTURES, 'runs-code.bin'))
    assert.equal(code, 'TORCH_FILE_INVALID')
    assert.match(message, /posix\.system/)
    assert.equal(existsSync('/tmp/this-file-was-run'), false)
  })

  it('are refused by what is wrong with them, with the way out', () => {
    assert.match(refusal(join(FIXTURES, 'strided.bin')).message, /tensor turned is a strided view.*safetensors/)
    assert.match(refusal(join(FIXTURES, 'nested.bin')).message, /entry nested is not a tensor/)
    assert.match(refusal(join(FIXTURES, 'legacy.bin')).message, /not a ZIP archive, as PyTorch 1.6/)
    assert.match(refusal(join(scratch, 'absent.bin')).message, /cannot be read/)
  })

  it('never crash the reader, cut or damaged anywhere', () => {
    const whole = readFileSync(join(FIXTURES, 'state.bin'))
    const path = join(scratch, 'damaged.bin')
    for (let at = 0; at < whole.length; at += 61) {
      writeFileSync(path, whole.subarray(0, at))
      assert.equal(refusal(path).code, 'TORCH_FILE_INVALID', `cut at ${at}`)
      const damaged = Buffer.from(whole)
      damaged[at] = (damaged[at] as number) ^ 0xff
      writeFileSync(path, damaged)
      try {
        for (const entry of openTorchFile(path).values()) assert.ok(entry.byteOffset + entry.byteLength <= whole.length)
      } catch (thrown) {
        assert.equal((thrown as { code?: string }).code, 'TORCH_FILE_INVALID', `byte ${at} turned: ${String(thrown)}`)
      }
    }
  })

  it('may nest dictionaries, lists and numbers where a format says so', () => {
    const path = join(scratch, 'tree.bin')
    const steps = [new NumpyInt(700), 3, 0.5]
    writeTorchFile(path, { diffs: { w: { size: new TorchSize([2, 3]), steps, values: tensor([2], [1.5, -2]) } }, none: null })
    const { entries } = openTorchDictionary(path)
    assert.deepEqual([...entries.keys()], ['diffs', 'none'])
    const diffs = entries.get('diffs') as TorchDictionary
    const w = (diffs.entries.get('w') as TorchDictionary).entries
    assert.deepEqual(w.get('size'), [2, 3])
    assert.deepEqual(w.get('steps'), [700, 3, 0.5])
    assert.deepEqual([...readTensorF32(w.get('values') as never)], [1.5, -2])
    assert.equal(entries.get('none'), null)
    assert.match(refusal(path).message, /entry diffs is not a tensor/)
  })

  it('are refused where dictionaries nest beyond any format', () => {
    const path = join(scratch, 'deep.bin')
    writeTorchFile(path, { a: { b: { c: { d: { e: 1 } } } } })
    assert.throws(() => openTorchDictionary(path), { code: 'TORCH_FILE_INVALID' })
    writeTorchFile(path, { a: ['text'] })
    assert.throws(() => openTorchDictionary(path), /entry a is neither/)
  })
})
