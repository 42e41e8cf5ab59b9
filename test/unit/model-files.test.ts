import assert from 'node:assert/strict'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { LorikeetError } from '../../src/errors.ts'
import { openModel } from '../../src/model/open-model.ts'
import { goldenModelDir } from '../support/golden.ts'
import { type Tensors, writeChangedModel, writeShardedModel } from '../support/model-dir.ts'
import { f32 } from '../support/safetensors-file.ts'

function assertInvalid(act: () => unknown, ...reasons: readonly RegExp[]): void {
  assert.throws(act, (error) => {
    assert.ok(error instanceof LorikeetError, String(error))
    assert.equal(error.code, 'MODEL_INVALID')
    for (const reason of reasons) assert.match(error.message, reason)
    return true
  })
}

const without = (name: string) => (tensors: Tensors) => {
  const { [name]: _, ...rest } = tensors
  return rest
}

test('a sharded checkpoint equals the single file', () => {
  const sharded = openModel(writeShardedModel('llama'))
  const single = openModel(goldenModelDir('llama'))
  assert.deepEqual([...sharded.parameters.keys()], [...single.parameters.keys()])
  for (const name of single.parameters.keys()) assert.deepEqual(sharded.read(name), single.read(name))
  assert.equal(sharded.totalBytes, single.totalBytes)
})

test('a lying index is refused', () => {
  const change = (key: string, shard: unknown) => () =>
    openModel(writeShardedModel('llama', (map) => ({ ...map, [key]: shard })))
  assertInvalid(change('model.norm.weight', '../a.safetensors'), /model\.norm\.weight in "\.\.\/a\.safetensors"/)
  assertInvalid(change('model.norm.weight', 7), /not a plain file name/)
  assertInvalid(change('model.norm.weight', 'c.safetensors'), /c\.safetensors, which is not in/)
  assertInvalid(change('lm_head.weight', 'b.safetensors'), /says b\.safetensors holds lm_head\.weight/)
  assertInvalid(change('nowhere.weight', 'a.safetensors'), /nowhere\.weight/)
})

test('missing directories and files are named', () => {
  assertInvalid(() => openModel('/no/such/model'), /\/no\/such\/model\/config\.json/)
  const dir = writeChangedModel('llama')
  rmSync(join(dir, 'model.safetensors'))
  assertInvalid(() => openModel(dir), /neither model\.safetensors nor model\.safetensors\.index\.json/)
  writeFileSync(join(dir, 'config.json'), '[]')
  assertInvalid(() => openModel(dir), /config\.json is not a JSON object/)
})

test('missing, extra and mis-shaped tensors are named', () => {
  const name = 'model.layers.1.mlp.up_proj.weight'
  assertInvalid(
    () => openModel(writeChangedModel('llama', { tensors: without(name) })),
    /lacks model\.layers\.1\.mlp\.up_proj\.weight/,
  )
  const extra = (tensors: Tensors) => ({ ...tensors, 'model.layers.0.self_attn.q_proj.bias': f32([64], new Array(64).fill(0)) })
  assertInvalid(
    () => openModel(writeChangedModel('llama', { tensors: extra })),
    /does not use: model\.layers\.0\.self_attn\.q_proj\.bias/,
  )
  const misshaped = (tensors: Tensors) => ({ ...tensors, [name]: f32([1, 2], [0, 0]) })
  assertInvalid(
    () => openModel(writeChangedModel('llama', { tensors: misshaped })),
    /up_proj\.weight has shape \[1, 2\]/,
    /\[128, 64\]/,
  )
  assertInvalid(
    () => openModel(writeChangedModel('llama', { config: { num_hidden_layers: 3 } })),
    /model\.layers\.2.* and 4 more/,
  )
})

test('a weight that is not a float, or holds NaN, is refused', () => {
  const ints = (tensors: Tensors) => ({
    ...tensors,
    'model.norm.weight': { dtype: 'I32', shape: [64], data: new Uint8Array(256) },
  })
  assertInvalid(() => openModel(writeChangedModel('llama', { tensors: ints })), /model\.norm\.weight has dtype I32/)
  const values = new Array(64).fill(1)
  values[5] = Number.NaN
  const withNan = (tensors: Tensors) => ({ ...tensors, 'model.norm.weight': f32([64], values) })
  const model = openModel(writeChangedModel('llama', { tensors: withNan }))
  assertInvalid(() => model.read('finalNorm'), /finalNorm holds NaN at element 5/)
  assertInvalid(() => model.read('layers.7.q'), /no parameter layers\.7\.q/)
})

test('a tied checkpoint may carry its head, and buffers of old versions are passed over', () => {
  const dir = writeChangedModel('llama3rope', {
    tensors: (tensors) => ({
      ...tensors,
      'lm_head.weight': tensors['model.embed_tokens.weight']!,
      'model.layers.0.self_attn.rotary_emb.inv_freq': f32([8], new Array(8).fill(1)),
    }),
  })
  const model = openModel(dir)
  assert.equal(model.spec.tiedHead, true)
  assert.equal(model.parameters.has('lmHead'), false)
  assert.equal(model.modules.get('lm_head')?.parts[0]?.site, 'lmHead')
})

test('a checkpoint saved from the headless class lacks the prefix', () => {
  const strip = (tensors: Tensors) =>
    Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [name.replace('transformer.', ''), tensor]))
  const model = openModel(writeChangedModel('gpt2', { tensors: strip }))
  assert.deepEqual(model.read('layers.1.k'), openModel(goldenModelDir('gpt2')).read('layers.1.k'))
})

test('end-of-sequence ids come from generation_config.json, else from config.json', () => {
  const eos = (generationConfig: Record<string, unknown> | null, fromConfig: unknown = 2) =>
    openModel(writeChangedModel('llama', { generationConfig, config: { eos_token_id: fromConfig } })).eosTokenIds
  assert.deepEqual(eos({ eos_token_id: [5, 6] }), [5, 6])
  assert.deepEqual(eos({ eos_token_id: 7 }), [7])
  assert.deepEqual(eos({}, [8, 9]), [8, 9])
  assert.deepEqual(eos(null, 3), [3])
  assert.deepEqual(eos(null, null), [])
  assertInvalid(() => eos({ eos_token_id: 'x' }), /eos_token_id/)
})

test('16-bit weights read as float32, and the dtype is that of most bytes', () => {
  const toBf16 = (tensors: Tensors) =>
    Object.fromEntries(
      Object.entries(tensors).map(([name, { shape, data }]) => {
        if (name.includes('norm')) return [name, { dtype: 'F32', shape, data }]
        const words = new Uint32Array(new Uint8Array(data).buffer)
        return [name, { dtype: 'BF16', shape, data: new Uint8Array(Uint16Array.from(words, (word) => word >>> 16).buffer) }]
      }),
    )
  const model = openModel(writeChangedModel('phi3', { tensors: toBf16 }))
  const original = openModel(goldenModelDir('phi3'))
  assert.equal(model.dtype, 'BF16')
  for (const name of ['layers.1.v', 'layers.0.up', 'embed', 'layers.0.preMlp']) {
    const [rounded, exact] = [model.read(name), original.read(name)]
    assert.equal(rounded.length, exact.length)
    assert.ok(
      rounded.every((value, i) => Math.abs(value - exact[i]!) <= Math.abs(exact[i]!) / 128),
      name,
    )
  }
})

test('parts of fused tensors are the right rows', () => {
  const phi3 = openModel(goldenModelDir('phi3'))
  const info = phi3.modules.get('model.layers.0.self_attn.qkv_proj')!
  assert.deepEqual(
    info.parts.map(({ site, rowStart, rowEnd }) => [site, rowStart, rowEnd]),
    [
      ['layers.0.q', 0, 64],
      ['layers.0.k', 64, 96],
      ['layers.0.v', 96, 128],
    ],
  )
  const [q, k] = [phi3.parameters.get('layers.0.q')!, phi3.parameters.get('layers.0.k')!]
  assert.deepEqual(
    [q.shape, k.shape],
    [
      [64, 64],
      [32, 64],
    ],
  )
  assert.equal(k.byteOffset - q.byteOffset, 64 * 64 * 4)
})

test('stacked experts read as the experts they stack', () => {
  for (const [name, block, [gate, up, down]] of [
    ['mixtral', 'block_sparse_moe', ['w1', 'w3', 'w2']],
    ['qwen3moe', 'mlp', ['gate_proj', 'up_proj', 'down_proj']],
  ] as const) {
    const stack = (tensors: Tensors): Tensors => {
      const kept = Object.entries(tensors).filter(([key]) => !key.includes('.experts.'))
      const stacked: Tensors = Object.fromEntries(kept.map(([key, tensor]) => [key.replace('block_sparse_moe', 'mlp'), tensor]))
      for (const layer of [0, 1]) {
        const part = (expert: number, role: string) =>
          tensors[`model.layers.${layer}.${block}.experts.${expert}.${role}.weight`]!
        const join = (roles: readonly string[]) =>
          Buffer.concat([0, 1, 2, 3].flatMap((expert) => roles.map((role) => part(expert, role).data)))
        const {
          dtype,
          shape: [rows = 0, columns = 0],
        } = part(0, gate)
        const path = `model.layers.${layer}.mlp.experts`
        stacked[`${path}.gate_up_proj`] = { dtype, shape: [4, 2 * rows, columns], data: join([gate, up]) }
        stacked[`${path}.down_proj`] = { dtype, shape: [4, columns, rows], data: join([down]) }
      }
      return stacked
    }
    const [stacked, apart] = [openModel(writeChangedModel(name, { tensors: stack })), openModel(goldenModelDir(name))]
    assert.equal(stacked.totalBytes, apart.totalBytes)
    for (const parameter of apart.parameters.keys()) assert.deepEqual(stacked.read(parameter), apart.read(parameter), parameter)
  }
})
