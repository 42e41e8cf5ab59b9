import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { convertAdapter, convertModel, interleaveHalves } from '../../bench/llama-gguf.ts'
import { ensureRandomAdapters, ensureRandomModel, SHAPES } from '../../bench/random-model.ts'
import { openSafetensors, readTensorF32 } from '../../src/model/safetensors.ts'

interface Gguf {
  readonly keys: ReadonlyMap<string, string | number>
  readonly tensors: ReadonlyMap<string, { readonly dims: readonly number[]; readonly values: Float32Array }>
}

/** A reader written from the format's description alone, for the three value types the writer knows. */
function readGguf(file: string): Gguf {
  const bytes = readFileSync(file)
  let at = 0
  const take = (length: number) => {
    at += length
    return bytes.subarray(at - length, at)
  }
  const u32 = () => take(4).readUInt32LE()
  const u64 = () => Number(take(8).readBigUInt64LE())
  const text = () => take(u64()).toString('utf8')
  assert.equal(bytes.toString('latin1', 0, 4), 'GGUF')
  at = 4
  assert.equal(u32(), 3)
  const [numTensors, numKeys] = [u64(), u64()]
  const keys = new Map<string, string | number>()
  for (let i = 0; i < numKeys; i++) {
    const key = text()
    const type = u32()
    if (type === 8) keys.set(key, text())
    else if (type === 4) keys.set(key, u32())
    else if (type === 6) keys.set(key, take(4).readFloatLE())
    else assert.fail(`value type ${type}`)
  }
  const infos = Array.from({ length: numTensors }, () => {
    const name = text()
    const dims = Array.from({ length: u32() }, u64)
    assert.equal(u32(), 0, 'float32')
    return { name, dims, offset: u64() }
  })
  const dataStart = Math.ceil(at / 32) * 32
  const tensors = infos.map(({ name, dims, offset }) => {
    assert.equal(offset % 32, 0, name)
    const size = dims.reduce((a, b) => a * b, 1)
    const start = dataStart + offset
    return [
      name,
      { dims, values: new Float32Array(bytes.buffer.slice(bytes.byteOffset + start, bytes.byteOffset + start + 4 * size)) },
    ] as const
  })
  return { keys, tensors: new Map(tensors) }
}

describe('GGUF conversion', () => {
  const out = mkdtempSync(join(tmpdir(), 'lorikeet-gguf-'))
  after(() => rmSync(out, { recursive: true }))
  const shape = 'stories260k'
  const { hiddenSize, numHeads, headDim, numLayers, vocabSize } = SHAPES[shape]
  const modelDir = ensureRandomModel({ out, shape, seed: 0 })
  const [adapterDir = ''] = ensureRandomAdapters({ out, shape, seed: 0, numAdapters: 1, rank: 4 })

  it('keeps every tensor of the model', () => {
    convertModel(modelDir, join(out, 'model.gguf'))
    const { keys, tensors } = readGguf(join(out, 'model.gguf'))
    const source = openSafetensors(join(modelDir, 'model.safetensors'))
    assert.equal(tensors.size, 2 + 9 * numLayers)
    assert.equal(tensors.size, source.tensors.size)
    assert.equal(keys.get('llama.attention.head_count'), numHeads)
    assert.equal(keys.get('general.architecture'), 'llama')
    assert.deepEqual(tensors.get('token_embd.weight')!.dims, [hiddenSize, vocabSize])
    const down = readTensorF32(source.tensors.get('model.layers.1.mlp.down_proj.weight')!)
    assert.deepEqual(tensors.get('blk.1.ffn_down.weight')!.values, down)
    const last = readTensorF32(source.tensors.get('model.norm.weight')!)
    assert.deepEqual(tensors.get('output_norm.weight')!.values, last)
  })

  it('moves the rows of rotated heads and no others', () => {
    const values = Float32Array.from({ length: 16 }, (_, i) => i)
    // Two heads of four rows of two columns: rows 0 2 1 3 of each.
    assert.deepEqual([...interleaveHalves(values, 2, [8, 2])], [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15])
  })

  it('writes adapters: A untouched, B of q and k moved like the base', () => {
    convertAdapter(modelDir, adapterDir, join(out, 'lora.gguf'))
    const { keys, tensors } = readGguf(join(out, 'lora.gguf'))
    const source = openSafetensors(join(adapterDir, 'adapter_model.safetensors'))
    const read = (path: string) => readTensorF32(source.tensors.get(`base_model.model.model.layers.0.${path}.weight`)!)
    assert.equal(keys.get('adapter.lora.alpha'), 8)
    assert.equal(tensors.size, 14 * numLayers)
    assert.deepEqual(tensors.get('blk.0.attn_q.weight.lora_a')!.values, read('self_attn.q_proj.lora_A'))
    const b = read('self_attn.q_proj.lora_B')
    const moved = tensors.get('blk.0.attn_q.weight.lora_b')!
    assert.deepEqual(moved.dims, [4, numHeads * headDim])
    assert.deepEqual(moved.values, interleaveHalves(b, numHeads, [numHeads * headDim, 4]))
    assert.notDeepEqual(moved.values, b)
    assert.deepEqual(tensors.get('blk.0.attn_v.weight.lora_b')!.values, read('self_attn.v_proj.lora_B'))
  })

  it('makes the same bytes from the same seed, and others from another', () => {
    const model = readFileSync(join(modelDir, 'model.safetensors'))
    const again = ensureRandomModel({ out: join(out, 'again'), shape, seed: 0 })
    const other = ensureRandomModel({ out: join(out, 'other'), shape, seed: 1 })
    assert.ok(model.equals(readFileSync(join(again, 'model.safetensors'))))
    assert.ok(!model.equals(readFileSync(join(other, 'model.safetensors'))))
  })

  it('keeps what is there and remakes what is half there', () => {
    const file = join(modelDir, 'model.safetensors')
    const whole = readFileSync(file)
    writeFileSync(file, 'kept')
    ensureRandomModel({ out, shape, seed: 0 })
    assert.equal(readFileSync(file, 'utf8'), 'kept')
    rmSync(join(modelDir, '.stamp'))
    ensureRandomModel({ out, shape, seed: 0 })
    assert.ok(readFileSync(file).equals(whole))
  })
})
