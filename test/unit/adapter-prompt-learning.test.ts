import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { LorikeetError } from '../../src/errors.ts'
import { type AdapterChange, compileChanged, goldenModel, readAdapterTensors } from '../support/adapter-dir.ts'
import type { Json, Tensors } from '../support/model-dir.ts'
import { f32 } from '../support/safetensors-file.ts'

const floatsOf = (tensors: Tensors, key: string): Float32Array =>
  new Float32Array(Uint8Array.from(tensors[key]?.data ?? []).buffer)

function assertRefused(name: string, change: AdapterChange, field: string, pattern = /./): void {
  assert.throws(
    () => compileChanged(name, change),
    (error) => {
      assert.ok(error instanceof LorikeetError, String(error))
      assert.equal(error.code, 'ADAPTER_REFUSED', error.message)
      assert.equal(error.field, field, error.message)
      assert.match(error.message, pattern)
      return true
    },
  )
}

describe('prefixes', () => {
  const { numKvHeads, headDim, numLayers } = goldenModel('llama').spec
  const width = numKvHeads * headDim

  it('are keys and values by layer, in turn, of each token', () => {
    const stored = floatsOf(readAdapterTensors('llama/prefix_tuning'), 'prompt_embeddings')
    const { virtualTokens, sites, numBytes, maxRank } = compileChanged('llama/prefix_tuning').adapter
    assert.ok(virtualTokens?.kind === 'prefix')
    assert.equal(virtualTokens.numTokens, 7)
    assert.equal(sites.size + maxRank, 0)
    assert.equal(numBytes, stored.byteLength)
    for (const [token, layer, i] of [
      [0, 0, 0],
      [3, 1, 5],
      [6, 1, width - 1],
    ] as const) {
      const row = token * 2 * numLayers * width
      assert.equal(virtualTokens.keys[layer]?.[token * width + i], stored[row + 2 * layer * width + i])
      assert.equal(virtualTokens.values[layer]?.[token * width + i], stored[row + (2 * layer + 1) * width + i])
    }
  })

  it('of a cartridge are prefixes', () => {
    const prefix = compileChanged('llama/prefix_tuning').adapter
    const cartridge = compileChanged('llama/prefix_tuning', {
      config: { peft_type: 'CARTRIDGE', num_frozen_tokens: 1, encoder_hidden_size: undefined, prefix_projection: undefined },
    }).adapter
    assert.equal(cartridge.kind, 'CARTRIDGE')
    assert.deepEqual(cartridge.virtualTokens, prefix.virtualTokens)
  })

  it('are refused where they do not fit the model', () => {
    const name = 'llama/prefix_tuning'
    assertRefused(name, { config: { token_dim: 64 } }, 'token_dim', /another base model/)
    assertRefused(name, { config: { num_attention_heads: 4 } }, 'num_attention_heads')
    assertRefused(name, { config: { num_layers: 3 } }, 'num_layers')
    assertRefused(name, { config: { num_transformer_submodules: 2 } }, 'num_transformer_submodules')
    assertRefused(name, { config: { num_virtual_tokens: 8 } }, 'prompt_embeddings')
    assertRefused(name, { config: { num_virtual_tokens: 0 } }, 'num_virtual_tokens')
    assertRefused(name, { config: { num_virtual_tokens: undefined } }, 'num_virtual_tokens')
    assertRefused(name, { config: { num_virtual_tokens: 1e6 } }, 'num_virtual_tokens', /leave no room/)
    assertRefused(name, { config: { modules_to_save: ['lm_head'] } }, 'modules_to_save')
    assertRefused(name, { config: { prefix_scale: 2 } }, 'prefix_scale', /does not know/)
    assertRefused(name, { tensors: () => ({ prompt_embedding: f32([1], [0]) }) }, 'prompt_embedding')
    assertRefused(name, { tensors: (all) => ({ ...all, prefix_task_cols: f32([1], [0]) }) }, 'prefix_task_cols')
  })

  it('need none of the keys that only say where they came from', () => {
    const missing = { token_dim: null, num_layers: null, num_attention_heads: null, num_transformer_submodules: null }
    const { digest } = compileChanged('llama/prefix_tuning').adapter
    assert.equal(compileChanged('llama/prefix_tuning', { config: missing }).adapter.digest, digest)
  })
})

describe('soft prompts', () => {
  it('are the stored rows, whatever trained them', () => {
    for (const [name, change] of [
      ['prompt_tuning', { prompt_tuning_init: 'TEXT', prompt_tuning_init_text: 'Say:', tokenizer_name_or_path: 'x' }],
      ['p_tuning_mlp', { encoder_reparameterization_type: 'LSTM', encoder_hidden_size: 7 }],
      ['p_tuning_lstm', { encoder_num_layers: 9 }],
      ['cpt', { num_virtual_tokens: 99, opt_loss_decay_factor: 0.5 }],
    ] as [string, Json][]) {
      const stored = floatsOf(readAdapterTensors(`llama/${name}`), 'prompt_embeddings')
      const { virtualTokens } = compileChanged(`llama/${name}`, { config: change }).adapter
      assert.ok(virtualTokens?.kind === 'soft-prompt')
      assert.deepEqual(virtualTokens.rows, stored)
    }
  })

  it('are refused where they do not fit', () => {
    assertRefused('llama/prompt_tuning', { config: { token_dim: 32 } }, 'token_dim')
    assertRefused('llama/prompt_tuning', { config: { num_virtual_tokens: 5 } }, 'prompt_embeddings')
    assertRefused('llama/cpt', { config: { cpt_token_ids: [5, 6, 7] } }, 'cpt_mask')
    assertRefused('llama/cpt', { config: { cpt_token_ids: [] } }, 'cpt_token_ids')
    const tooFew = { cpt_token_ids: [5], cpt_mask: [1], cpt_tokens_type_mask: [1] }
    assertRefused('llama/cpt', { config: tooFew }, 'prompt_embeddings')
  })

  it('of several tasks serve the one that the config names', () => {
    const name = 'llama/multitask_prompt'
    const tensors = readAdapterTensors(name)
    const [rows, cols, prompt] = ['prefix_task_rows', 'prefix_task_cols', 'prompt_embeddings'].map((key) =>
      floatsOf(tensors, key),
    )
    for (const taskId of [0, 1, 2]) {
      const { virtualTokens } = compileChanged(name, { config: { task_id: taskId } }).adapter
      assert.ok(virtualTokens?.kind === 'soft-prompt')
      for (const [token, i] of [
        [0, 0],
        [2, 17],
        [4, 63],
      ] as const) {
        let factor = 0
        for (let r = 0; r < 2; r++) factor += cols![(taskId * 5 + token) * 2 + r]! * rows![(taskId * 2 + r) * 64 + i]!
        const found = virtualTokens.rows[token * 64 + i]!
        assert.ok(Math.abs(found - prompt![token * 64 + i]! * factor) < 1e-6)
      }
    }
    assertRefused(name, { config: { task_id: undefined } }, 'task_id', /holds 3 tasks.*0 to 2/)
    for (const bad of [3, -1, 0.5, '1']) assertRefused(name, { config: { task_id: bad } }, 'task_id')
    assertRefused(name, { config: { num_tasks: 4 } }, 'prefix_task_cols')
    assertRefused(name, { config: { num_ranks: 1 } }, 'prefix_task_cols')
  })
})

describe('digests of virtual tokens', () => {
  const compiled = (name: string, change: AdapterChange = {}) => compileChanged(`llama/${name}`, change).adapter

  it('change with one number, and always change keys and values', () => {
    for (const name of ['prefix_tuning', 'prompt_tuning']) {
      const { digest, kvDigest } = compiled(name)
      assert.notEqual(kvDigest, '')
      const nudge = (tensors: Tensors): Tensors => {
        const values = floatsOf(tensors, 'prompt_embeddings')
        values[3]! += 1e-3
        return { prompt_embeddings: f32([...tensors['prompt_embeddings']!.shape], [...values]) }
      }
      const nudged = compiled(name, { tensors: nudge })
      assert.notEqual(nudged.digest, digest)
      assert.notEqual(nudged.kvDigest, kvDigest)
    }
    assert.notEqual(
      compiled('multitask_prompt', { config: { task_id: 0 } }).kvDigest,
      compiled('multitask_prompt', { config: { task_id: 1 } }).kvDigest,
    )
  })

  it('are those of the numbers, not of the type', () => {
    const asPTuning = compiled('prompt_tuning', {
      config: { peft_type: 'P_TUNING', prompt_tuning_init: undefined, tokenizer_kwargs: undefined },
    })
    assert.equal(asPTuning.digest, compiled('prompt_tuning').digest)
  })
})
