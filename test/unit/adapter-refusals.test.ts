// Every way an adapter can fail to be what its config says, and the field that the refusal names.

import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { compileAdapter } from '../../src/adapter/compile.ts'
import { adapterId } from '../../src/core/ids.ts'
import { LorikeetError } from '../../src/errors.ts'
import { openModel } from '../../src/model/open-model.ts'
import {
  type AdapterChange,
  compileChanged,
  goldenModel,
  readAdapterTensors,
  writeChangedAdapter,
} from '../support/adapter-dir.ts'
import { goldenAdapterDir } from '../support/adapter-golden-suite.ts'
import type { Tensors } from '../support/model-dir.ts'
import { f32, tempDir } from '../support/safetensors-file.ts'

const PREFIX = 'base_model.model.'
const Q0 = `${PREFIX}model.layers.0.self_attn.q_proj`

const REFUSED_CONFIGS: readonly (readonly [name: string, config: Record<string, unknown>, field: string])[] = [
  ['a type nobody knows', { peft_type: 'LATEST' }, 'peft_type'],
  ['another task', { task_type: 'SEQ_CLS' }, 'task_type'],
  ['a key nobody knows, set', { use_magic: true }, 'use_magic'],
  ['an option known to be missing', { layer_replication: [[0, 2]] }, 'layer_replication'],
  ['routing', { arrow_config: { top_k: 3 } }, 'arrow_config'],
  ['groups of no size', { use_qalora: true, qalora_group_size: 0.5 }, 'qalora_group_size'],
  ['blocks without number', { use_bdlora: { target_modules_bd_a: ['q_proj'] } }, 'use_bdlora.nblocks'],
  ['blocks with an unknown option', { use_bdlora: { nblocks: 2, twist: 1 } }, 'use_bdlora.twist'],
  ['an unknown option of KaSA', { kasa_config: { delta: 1 } }, 'kasa_config.delta'],
  ['KaSA without its diagonal', { kasa_config: { beta: 1 } }, `${Q0}.lora_diag`],
  ['KaSA and DoRA', { kasa_config: {}, use_dora: true }, 'kasa_config'],
  ['fused parameters', { target_parameters: ['mlp.experts'] }, 'target_parameters'],
  ['a parameter of a targeted module', { target_parameters: ['q_proj.weight'] }, 'target_parameters'],
  ['a norm as a parameter', { target_parameters: ['model.norm.weight'] }, 'target_parameters'],
  ['no rank', { r: undefined }, 'r'],
  ['rank 0', { r: 0 }, 'r'],
  ['half a rank', { r: 4.5 }, 'r'],
  ['a rank the tensors do not have', { r: 8 }, 'r'],
  ['rank in a pattern below 1', { rank_pattern: { q_proj: 0 } }, 'rank_pattern.q_proj'],
  ['a pattern of words', { alpha_pattern: { q_proj: 'high' } }, 'alpha_pattern.q_proj'],
  ['no alpha', { lora_alpha: undefined }, 'lora_alpha'],
  ['alpha in words', { lora_alpha: '16' }, 'lora_alpha'],
  ['a flag that is no flag', { use_rslora: 1 }, 'use_rslora'],
  ['a bias mode nobody knows', { bias: 'some' }, 'bias'],
  ['a pattern that is no regular expression', { target_modules: '(' }, 'target_modules'],
  ['a pattern that never ends', { target_modules: '(.*.*.*.*.*.*.*.*)*x' }, 'target_modules'],
  ['targets that do not exist', { target_modules: ['query_key_value'] }, 'target_modules'],
  ['a target that is a norm', { target_modules: ['q_proj', 'input_layernorm'] }, 'target_modules'],
  ['targets that are numbers', { target_modules: [1] }, 'target_modules'],
  ['layers with a pattern', { target_modules: '.*q_proj', layers_to_transform: [0] }, 'layers_to_transform'],
  ['a layer pattern without layers', { layers_pattern: 'layers' }, 'layers_pattern'],
  ['an unconverted base change', { init_lora_weights: 'corda' }, 'init_lora_weights'],
  ['a random base change', { init_lora_weights: 'pissa_niter_4' }, 'init_lora_weights'],
  ['LoftQ', { init_lora_weights: 'loftq' }, 'init_lora_weights'],
  ['a base change under DoRA', { init_lora_weights: 'pissa', use_dora: true }, 'init_lora_weights'],
  ['an invocation out of vocabulary', { alora_invocation_tokens: [320] }, 'alora_invocation_tokens'],
  ['an empty invocation', { alora_invocation_tokens: [] }, 'alora_invocation_tokens'],
  ['tokens out of vocabulary', { trainable_token_indices: [1, 320] }, 'trainable_token_indices'],
  ['tokens of a module that does not exist', { trainable_token_indices: { wte: [1] } }, 'trainable_token_indices.wte'],
]

const REFUSED_TENSORS: readonly (readonly [name: string, change: (tensors: Tensors) => Tensors, field: string])[] = [
  ['a missing B', (tensors) => without(tensors, `${Q0}.lora_B.weight`), `${Q0}.lora_B.weight`],
  ['a missing module', (tensors) => without(tensors, `${Q0}.lora_A.weight`, `${Q0}.lora_B.weight`), `${Q0}.lora_A.weight`],
  ['an extra tensor', (tensors) => ({ ...tensors, [`${Q0}.lora_C.weight`]: f32([1], [1]) }), `${Q0}.lora_C.weight`],
  [
    'a layer the model does not have',
    (tensors) => renamed(tensors, 'layers.1.', 'layers.7.'),
    `${PREFIX}model.layers.1.self_attn.q_proj.lora_A.weight`,
  ],
  ['a prefix of another writer', (tensors) => renamed(tensors, 'base_model.model.', 'base_model.'), ''],
  [
    'another width',
    (tensors) => ({ ...tensors, [`${Q0}.lora_A.weight`]: f32([4, 32], new Array(128).fill(1)) }),
    `${Q0}.lora_A.weight`,
  ],
  [
    'a NaN',
    (tensors) => ({ ...tensors, [`${Q0}.lora_A.weight`]: f32([4, 64], new Array<number>(256).fill(Number.NaN)) }),
    `${Q0}.lora_A.weight`,
  ],
  [
    'an infinity',
    (tensors) => ({
      ...tensors,
      [`${Q0}.lora_B.weight`]: f32([64, 4], [...new Array<number>(255).fill(0), Number.POSITIVE_INFINITY]),
    }),
    `${Q0}.lora_B.weight`,
  ],
  ['no tensor at all', () => ({}), 'adapter_model.safetensors'],
  [
    'one parameter under two names',
    (tensors) => ({
      ...tensors,
      [`${PREFIX}model.language_model.layers.0.self_attn.q_proj.lora_A.weight`]: tensors[`${Q0}.lora_A.weight`]!,
    }),
    '',
  ],
]

describe('refused adapters', () => {
  for (const [name, config, field] of REFUSED_CONFIGS) {
    it(`config: ${name}`, () => void assertRefused('llama/lora_all', { config }, field))
  }

  for (const [name, tensors, field] of REFUSED_TENSORS) {
    it(`tensors: ${name}`, () => void assertRefused('llama/lora_all', { tensors }, field))
  }

  it('no value of any config key is more than a refusal', () => {
    const config = JSON.parse(readFileSync(join(goldenAdapterDir('llama', 'lora_all'), 'adapter_config.json'), 'utf8'))
    const values = [null, true, 0, -1.5, 'x', '', [], ['q_proj', 3], {}, { q_proj: [1] }, [[1]]]
    for (const key of Object.keys(config)) {
      for (const value of values) {
        try {
          compileChanged('llama/lora_all', { config: { [key]: value } })
        } catch (error) {
          assert.ok(
            error instanceof LorikeetError && error.code === 'ADAPTER_REFUSED',
            `${key} = ${JSON.stringify(value)}: ${error}`,
          )
        }
      }
    }
  })

  it('completeness: no tensor of any golden adapter can be left out', () => {
    for (const name of [
      'llama/lora_dora',
      'llama/lora_modules_to_save',
      'llama/lora_trainable_tokens',
      'llama/lora_lorabias',
      'gpt2/lora_gpt2_conv1d',
    ]) {
      for (const key of Object.keys(readAdapterTensors(name)))
        assertRefused(name, { tensors: (tensors) => without(tensors, key) }, key)
    }
  })

  it('activated LoRA beside anything that acts on every token', () => {
    const invoked = { alora_invocation_tokens: [312, 316] }
    for (const name of ['llama/lora_dora', 'llama/lora_norm_to_save', 'llama/lora_trainable_tokens', 'llama/lora_embed']) {
      assertRefused(name, { config: invoked }, 'alora_invocation_tokens')
    }
    assertRefused('llama/lora_megatron_pissa', { config: invoked }, 'init_lora_weights')
  })

  it('a module that is both targeted and trained whole or by rows', () => {
    const rows = 'trainable_token_indices'
    const targeted = { target_modules: ['q_proj', 'lm_head'], trainable_token_indices: { lm_head: [1] } }
    assertRefused('llama/lora_trainable_tokens', { config: targeted }, rows)
    const saved = { modules_to_save: ['embed_tokens'], trainable_token_indices: [1] }
    assertRefused('llama/lora_all', { config: saved }, rows)
    // Rows of a tied embedding are rows of the head.
    const tied = { modules_to_save: ['lm_head'], trainable_token_indices: [1] }
    assertRefused('llama3rope/lora_all', { config: tied }, rows)
    // modules_to_save has no dot boundary, the exclusion from the targets has one.
    assertRefused('llama/lora_all', { config: { modules_to_save: ['_proj'] } }, 'target_modules')
    assertRefused('llama/lora_all', { config: { modules_to_save: [''] } }, 'modules_to_save')
  })

  it('an adapter of a larger vocabulary says so', () => {
    const key = `${PREFIX}model.embed_tokens.weight`
    const tensors = (given: Tensors) => ({ ...given, [key]: f32([328, 64], new Array(328 * 64).fill(0.1)) })
    const error = assertRefused('llama/lora_qv', { tensors }, 'model.embed_tokens.weight')
    assert.match(error.message, /328 rows, the base model 320/)
  })

  it('an adapter of another base names the tensor and both shapes', () => {
    const dir = goldenAdapterDir('mistral', 'lora_all')
    const error = thrownBy(() => compileAdapter(dir, goldenModel('llama'), adapterId(1), 'test'))
    assert.equal(error.code, 'ADAPTER_REFUSED')
    assert.match(error.message, /another base/)
  })

  it('a directory that is not there, is empty, or is no PEFT adapter', () => {
    const model = goldenModel('llama')
    const compile = (dir: string) => thrownBy(() => compileAdapter(dir, model, adapterId(1), 'test'))
    assert.equal(compile('/does/not/exist').code, 'ADAPTER_NOT_FOUND')
    assert.equal(compile(tempDir()).code, 'ADAPTER_NOT_FOUND')
    const pickled = writeChangedAdapter('llama/lora_all')
    rmSync(join(pickled, 'adapter_model.safetensors'))
    assert.equal(compile(pickled).field, 'adapter_model.safetensors')
    writeFileSync(join(pickled, 'adapter_model.bin'), '')
    assert.match(compile(pickled).message, /save it as safetensors/)
    writeFileSync(join(pickled, 'adapter_config.json'), '{')
    assert.equal(compile(pickled).field, 'adapter_config.json')
    writeFileSync(join(pickled, 'adapter_config.json'), '[]')
    assert.equal(compile(pickled).field, 'adapter_config.json')
    writeFileSync(join(pickled, 'adapter_config.json'), '{"r": 8}')
    assert.equal(compile(pickled).field, 'peft_type')
    writeFileSync(
      join(pickled, 'adapter_config.json'),
      '{"config": {"architecture": "lora"}, "model_class": "LlamaForCausalLM"}',
    )
    assert.equal(compile(pickled).field, 'name')
    const truncated = writeChangedAdapter('llama/lora_all')
    writeFileSync(join(truncated, 'adapter_model.safetensors'), 'short')
    assert.equal(compile(truncated).code, 'SAFETENSORS_INVALID')
    const folder = join(tempDir(), 'adapter_config.json')
    mkdirSync(folder)
    assert.equal(compile(join(folder, '..')).code, 'ADAPTER_NOT_FOUND')
  })

  it('sharded weights are refused; safetensors wins over a pickle beside it', () => {
    const model = goldenModel('llama')
    const dir = writeChangedAdapter('llama/lora_all')
    writeFileSync(join(dir, 'adapter_model.bin'), 'no pickle')
    compileAdapter(dir, model, adapterId(1), 'test')
    rmSync(join(dir, 'adapter_model.bin'))
    rmSync(join(dir, 'adapter_model.safetensors'))
    writeFileSync(join(dir, 'adapter_model.safetensors.index.json'), '{}')
    const error = thrownBy(() => compileAdapter(dir, model, adapterId(1), 'test'))
    assert.equal(error.field, 'adapter_model.safetensors.index.json')
  })

  it('none of the demo adapters', () => {
    const demo = join(import.meta.dirname, '../../demo')
    const model = openModel(join(demo, 'model'))
    const names = readdirSync(join(demo, 'adapters'))
    assert.equal(names.length, 11)
    for (const name of names) {
      const { adapter, warnings } = compileAdapter(join(demo, 'adapters', name), model, adapterId(1), name)
      assert.deepEqual(warnings, [], name)
      assert.equal(adapter.virtualTokens !== null, ['rain', 'ask'].includes(name), name)
      assert.equal(adapter.sites.size > 0, adapter.virtualTokens === null, name)
    }
  })
})

function assertRefused(name: string, change: AdapterChange, field: string): LorikeetError {
  const error = thrownBy(() => compileChanged(name, change))
  assert.equal(error.code, 'ADAPTER_REFUSED', error.message)
  if (field !== '') assert.equal(error.field, field, error.message)
  assert.ok(error.message.includes("'test' is refused"), error.message)
  return error
}

function thrownBy(act: () => unknown): LorikeetError {
  try {
    act()
  } catch (error) {
    assert.ok(error instanceof LorikeetError, String(error))
    return error
  }
  return assert.fail('nothing was thrown')
}

function without(tensors: Tensors, ...keys: string[]): Tensors {
  return Object.fromEntries(Object.entries(tensors).filter(([key]) => !keys.includes(key)))
}

function renamed(tensors: Tensors, from: string, to: string): Tensors {
  return Object.fromEntries(Object.entries(tensors).map(([key, tensor]) => [key.replace(from, to), tensor]))
}
