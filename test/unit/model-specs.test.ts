import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { LorikeetError } from '../../src/errors.ts'
import { findArchitecture } from '../../src/model/architectures/find-architecture.ts'
import { ConfigReader } from '../../src/model/config-reader.ts'
import type { DecoderSpec } from '../../src/model/decoder-spec.ts'
import { type Json, readConfig } from '../support/model-dir.ts'

function describeModel(name: string, change: Json = {}) {
  const config = new ConfigReader(JSON.parse(JSON.stringify({ ...readConfig(name), ...change })))
  return findArchitecture(config).describe(config)
}

const specOf = (name: string, change: Json = {}): DecoderSpec => describeModel(name, change).spec

/** A config as transformers 4 wrote it. */
const oldRope = (theta: number, scaling: Json | null = null): Json => ({
  rope_parameters: undefined,
  rope_theta: theta,
  rope_scaling: scaling,
})

function assertRefused(name: string, change: Json, field: string): void {
  assert.throws(
    () => specOf(name, change),
    (error) => {
      assert.ok(error instanceof LorikeetError, String(error))
      assert.equal(error.code, 'MODEL_UNSUPPORTED')
      assert.equal(error.params['field'], field)
      return true
    },
  )
}

function assertInvalid(name: string, change: Json, reason: RegExp): void {
  assert.throws(
    () => specOf(name, change),
    (error) => error instanceof LorikeetError && error.code === 'MODEL_INVALID' && reason.test(error.message),
  )
}

describe('rotary settings', () => {
  test('transformers 4 and 5 configs say the same', () => {
    const llama3 = {
      rope_type: 'llama3',
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 64,
    }
    assert.deepEqual(specOf('llama3rope', oldRope(500_000, llama3)), specOf('llama3rope'))
    assert.deepEqual(specOf('llama', oldRope(10_000)), specOf('llama'))
    assert.deepEqual(specOf('llama', oldRope(10_000, { rope_type: 'default' })), specOf('llama'))
  })

  test('linear and dynamic scaling, by either name of their kind', () => {
    const linear = specOf('llama', oldRope(10_000, { type: 'linear', factor: 4 }))
    assert.deepEqual(linear.layers[0]?.rope?.scaling, { kind: 'linear', factor: 4 })
    assert.equal(linear.maxPositions, 1024)
    const dynamic = specOf('llama', { rope_parameters: { rope_type: 'dynamic', factor: 2, rope_theta: 5000 } })
    assert.deepEqual(dynamic.layers[1]?.rope, {
      rotaryDim: 16,
      theta: 5000,
      scaling: { kind: 'dynamic', factor: 2, originalMaxPositions: 256 },
    })
    assert.equal(dynamic.maxPositions, 512)
  })

  test('partial rotation is even and at most the head', () => {
    assert.equal(specOf('phi3', { ...oldRope(10_000), partial_rotary_factor: 0.75 }).layers[0]?.rope?.rotaryDim, 12)
    assertRefused('phi3', { ...oldRope(10_000), partial_rotary_factor: 0.6 }, 'partial_rotary_factor')
  })

  test('other scalings are refused by field', () => {
    const longrope = { type: 'longrope', short_factor: [1], long_factor: [1] }
    assertRefused('phi3', oldRope(10_000, longrope), 'rope_scaling.type')
    assertRefused('llama', { rope_parameters: { rope_type: 'yarn', factor: 4 } }, 'rope_parameters.rope_type')
    assertInvalid('llama', { rope_parameters: { rope_type: 'linear' } }, /rope_parameters\.factor must be a finite number/)
  })
})

describe('families', () => {
  test('biases follow the config', () => {
    const biased = (name: string, change: Json) =>
      describeModel(name, change)
        .modules.filter(({ layer, hasBias }) => layer === 0 && hasBias)
        .flatMap(({ parts }) => parts.map(({ site }) => site.replace('layers.0.', '')))
    assert.deepEqual(biased('llama', {}), [])
    assert.deepEqual(biased('llama', { attention_bias: true }), ['q', 'k', 'v', 'o'])
    assert.deepEqual(biased('llama', { mlp_bias: true }), ['gate', 'up', 'down'])
    assert.deepEqual(biased('qwen2', {}), ['q', 'k', 'v'])
    assert.deepEqual(biased('gpt2', {}), ['preAttn', 'q', 'k', 'v', 'o', 'preMlp', 'up', 'down'])
  })

  test('head size is the config’s, else hidden size over heads', () => {
    assert.equal(specOf('mistral').headDim, 24)
    assert.equal(specOf('mixtral').headDim, 16)
    assert.equal(specOf('llama', { head_dim: undefined }).headDim, 16)
  })

  test('sliding windows', () => {
    const windows = (name: string, change: Json = {}) => specOf(name, change).layers.map(({ slidingWindow }) => slidingWindow)
    assert.deepEqual(windows('mistral'), [8, 8])
    assert.deepEqual(windows('mistral', { sliding_window: null }), [null, null])
    assert.deepEqual(windows('gemma2'), [8, null])
    assert.deepEqual(windows('gemma2', { layer_types: undefined }), [8, null])
    const sliding = { sliding_window: 5, use_sliding_window: true, layer_types: undefined, max_window_layers: 1 }
    assert.deepEqual(windows('qwen2', sliding), [null, 5])
    assert.deepEqual(windows('qwen2', { ...sliding, use_sliding_window: false }), [null, null])
    assertRefused('qwen2', { layer_types: ['full_attention', 'chunked_attention'] }, 'layer_types')
    assertInvalid('qwen2', { layer_types: ['full_attention'] }, /layer_types lists 1 layers/)
  })

  test('gemma 3: every sixth layer is full and turns with its own theta, old and new configs alike', () => {
    const layerTypes = Array.from({ length: 12 }, (_, i) => (i % 6 === 5 ? 'full_attention' : 'sliding_attention'))
    const rope = {
      full_attention: { rope_theta: 1e6, rope_type: 'linear', factor: 8 },
      sliding_attention: { rope_theta: 1e4, rope_type: 'default' },
    }
    const fresh = specOf('gemma3', { num_hidden_layers: 12, layer_types: layerTypes, rope_parameters: rope })
    const old = specOf('gemma3', {
      ...oldRope(1e6, { rope_type: 'linear', factor: 8 }),
      num_hidden_layers: 12,
      layer_types: undefined,
      rope_local_base_freq: 1e4,
      sliding_window_pattern: 6,
    })
    assert.deepEqual(old, fresh)
    assert.deepEqual(fresh.layers[5], {
      ...fresh.layers[0],
      slidingWindow: null,
      rope: { rotaryDim: 16, theta: 1e6, scaling: { kind: 'linear', factor: 8 } },
    })
    assert.equal(fresh.maxPositions, 256)
    assertRefused('gemma3', { use_bidirectional_attention: true }, 'use_bidirectional_attention')
  })

  test('gemma scales embeddings and attention, and adds one to norm weights', () => {
    const { embedScale, attentionScale, norm, attentionSoftcap, finalSoftcap } = specOf('gemma2', { query_pre_attn_scalar: 64 })
    assert.deepEqual(
      { embedScale, attentionScale, attentionSoftcap, finalSoftcap },
      { embedScale: 8, attentionScale: 0.125, attentionSoftcap: 50, finalSoftcap: 30 },
    )
    assert.equal(norm.weightOffset, 1)
  })

  test('qwen 3 mixtures may keep dense layers', () => {
    const kinds = (change: Json) => specOf('qwen3moe', change).layers.map(({ mlp }) => `${mlp.kind} ${mlp.intermediateSize}`)
    assert.deepEqual(kinds({}), ['experts 64', 'experts 64'])
    assert.deepEqual(kinds({ mlp_only_layers: [0] }), ['gated 128', 'experts 64'])
    assert.deepEqual(kinds({ decoder_sparse_step: 2 }), ['gated 128', 'experts 64'])
    assert.ok(
      describeModel('qwen3moe', { mlp_only_layers: [0] }).modules.some(({ path }) => path === 'model.layers.0.mlp.gate_proj'),
    )
    assertInvalid('qwen3moe', { num_experts_per_tok: 9 }, /num_experts_per_tok/)
  })

  test('settings that change the maths and are not honoured are refused', () => {
    assertRefused('llama', { model_type: 'falcon' }, 'model_type')
    assertRefused('llama', { hidden_act: 'quick_gelu' }, 'hidden_act')
    assertRefused('llama', { quantization_config: { bits: 4 } }, 'quantization_config')
    assertRefused('gpt2', { scale_attn_by_inverse_layer_idx: true }, 'scale_attn_by_inverse_layer_idx')
    assertRefused('gpt2', { add_cross_attention: true }, 'add_cross_attention')
  })

  test('wrong types and impossible sizes are invalid', () => {
    assertInvalid('llama', { hidden_size: '64' }, /hidden_size must be a positive integer, found "64"/)
    assertInvalid('llama', { rms_norm_eps: undefined }, /rms_norm_eps/)
    assertInvalid('llama', { num_key_value_heads: 3 }, /no multiple of num_key_value_heads/)
    assertInvalid('llama', { attention_bias: 'yes' }, /attention_bias must be true or false/)
  })
})
