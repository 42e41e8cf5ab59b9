// Properties of every kind of HF PEFT: each tensor counts, and so does each value of the config. That the kinds compute what PEFT
// computes is shown by the golden adapters (test/backend).

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { LorikeetError } from '../../src/errors.ts'
import { type AdapterChange, compileChanged, readAdapterTensors } from '../support/adapter-dir.ts'
import type { Json, Tensors } from '../support/model-dir.ts'
import { f32, type TensorData } from '../support/safetensors-file.ts'

const LAYER1_Q = 'base_model.model.model.layers.1.self_attn.q_proj'

/** Fixtures that stand for their kind. */
const GOLDENS = [
  'llama/adalora',
  'llama/adaption_prompt',
  'llama/adalora_pruned',
  'llama/deft',
  'llama/deft_para',
  'llama/delora',
  'llama/delora_pattern',
  'llama/gralora',
  'llama/gralora_hybrid',
  'llama/hra',
  'llama/hra_gs',
  'llama/ia3',
  'llama/ln_tuning',
  'llama/loha',
  'llama/loha_dense',
  'llama/lokr_decompose_both',
  'llama/lokr_full',
  'llama/lora_bdlora',
  'llama/miss',
  'llama/miss_bat',
  'llama/miss_mini',
  'llama/oft',
  'llama/peanut_deep',
  'llama/pvera',
  'llama/pvera_nosave',
  'llama/tinylora',
  'llama/vblora',
  'llama/vblora_topkonly',
  'llama/vera',
  'llama/vera_nosave',
  'llama3rope/oft_shared',
  'qwen2/hra_bias',
  'qwen2/oft_bias',
  'phi3/ia3_fused',
  'phi3/tinylora_phi3',
  'gpt2/tinylora_gpt2',
  'llama/beft',
  'llama/boft',
  'llama/boft_butterfly',
  'llama/bone',
  'llama/bone_bat',
  'llama/c3a',
  'llama/fourierft',
  'llama/frod',
  'llama/glora',
  'llama/glora_vector',
  'llama/hira',
  'llama/hira_embed',
  'llama/lora_kasa',
  'llama/lora_olora',
  'llama/lora_parameters',
  'llama/oft_013',
  'llama/oft_015',
  'llama/oft_coft',
  'qwen2/oft_013_coft',
  'qwen2/oft_015_coft',
  'llama/osf',
  'llama/poly',
  'llama/randlora',
  'llama/road_1',
  'llama/road_2',
  'llama/road_4',
  'llama/shira',
  'llama/shira_head',
  'llama/supertuning',
  'llama/supertuning_lora',
  'llama/unilora',
  'llama/waveft',
  'llama/waveft_plain',
  'phi3/c3a_fused',
  'phi3/road_fused',
  'qwen2/beft_bias',
  'qwen2/boft_bias',
  'qwen2/glora_bias',
  'qwen2/glora_shift',
  'qwen2/road_bias',
  'gemma2/hira_embed',
  'mistral/road_4',
  'qwen2/lora_parameters',
  'qwen3/boft',
  'gpt2/waveft_gpt2',
  'gpt2/fourierft_gpt2',
  'gpt2/hira_gpt2',
]

const REFUSED_CONFIGS: readonly (readonly [name: string, config: Json, field: string])[] = [
  ['llama/adalora', { init_r: 7 }, 'rank_pattern'],
  ['llama/adalora', { init_r: undefined }, 'init_r'],
  ['llama/adalora', { use_dora: true }, 'use_dora'],
  ['llama/adalora', { use_rslora: true }, 'use_rslora'],
  ['llama/adalora', { alpha_pattern: { q_proj: 3 } }, 'alpha_pattern'],
  ['llama/adalora', { lora_alpha: undefined }, 'lora_alpha'],
  ['llama/adalora_pruned', { lora_alpha: 0 }, 'lora_alpha'],
  ['llama/adalora_pruned', { rank_pattern: { 'model.layers.0.q.lora_E': [1] } }, 'rank_pattern.model.layers.0.q.lora_E'],
  ['llama/deft', { r: 5 }, 'r'],
  ['llama/deft', { decomposition_method: 'svd' }, 'decomposition_method'],
  ['llama/deft', { para: true }, ''],
  ['llama/delora', { r: 5 }, 'r'],
  ['llama/gralora', { gralora_k: 3 }, 'gralora_k'],
  ['llama/gralora', { hybrid_r: 1 }, ''],
  ['llama/gralora', { hybrid_r: -1 }, 'hybrid_r'],
  ['llama/gralora', { alpha: undefined }, 'alpha'],
  ['llama/hra', { r: 5 }, 'r'],
  ['llama/hra', { apply_GS: 'yes' }, 'apply_GS'],
  ['llama/hra', { bias: 'lora_only' }, 'bias'],
  ['llama/hra', { target_modules: ['embed_tokens'] }, 'target_modules'],
  ['llama/hra', { target_modules: ['q_proj'], modules_to_save: ['_proj'] }, 'target_modules'],
  ['llama/ia3', { feedforward_modules: [] }, 'feedforward_modules'],
  ['llama/ia3', { feedforward_modules: ['k_proj', 'down_proj'] }, 'feedforward_modules'],
  ['llama/ia3', { feedforward_modules: '(' }, 'feedforward_modules'],
  ['llama/ln_tuning', { target_modules: ['norm'] }, ''],
  ['llama/loha', { r: 5 }, 'r'],
  ['llama/loha', { rank_pattern: { q_proj: 2 } }, 'r'],
  ['llama/loha', { alpha: undefined }, 'alpha'],
  ['llama/lokr_decompose_both', { decompose_factor: 4 }, ''],
  ['llama/lokr_decompose_both', { alpha: undefined }, 'alpha'],
  ['llama/lokr_decompose_both', { r: 3 }, ''],
  ['llama/lora_bdlora', { use_bdlora: null }, ''],
  ['llama/lora_bdlora', { use_dora: true }, 'use_dora'],
  ['llama/miss', { init_weights: 'fast' }, 'init_weights'],
  ['llama/miss', { init_weights: 'bat' }, ''],
  ['llama/miss', { r: 4 }, 'r'],
  ['llama/miss_mini', { mini_r: 3 }, 'mini_r'],
  ['llama/oft_coft', { eps: 0 }, 'eps'],
  ['llama/oft_013', { r: 5 }, ''],
  ['llama/oft_013', { use_cayley_neumann: false }, ''],
  ['llama/oft_015', { r: 8 }, 'oft_block_size'],
  ['qwen2/oft_015_coft', { eps: 0 }, 'eps'],
  ['llama/oft', { use_cayley_neumann: undefined }, 'use_cayley_neumann'],
  ['llama/oft', { num_cayley_neumann_terms: 0 }, 'num_cayley_neumann_terms'],
  ['llama/oft', { num_cayley_neumann_terms: 1e9 }, 'num_cayley_neumann_terms'],
  ['llama/oft', { peft_version: 'new' }, 'peft_version'],
  ['llama/oft', { oft_block_size: 8 }, ''],
  ['llama/oft', { oft_block_size: 0 }, 'r'],
  ['llama/oft', { r: 4 }, 'r'],
  ['llama/oft', { block_share: true }, ''],
  ['llama/oft', { bias: 'lora_only' }, 'bias'],
  ['llama/oft', { target_modules: ['norm'] }, 'target_modules'],
  ['llama/peanut_deep', { depth: 1 }, ''],
  ['llama/peanut_deep', { act_fn: 'step' }, 'act_fn'],
  ['llama/pvera', { sample_at_inference: true }, 'sample_at_inference'],
  ['llama/pvera', { save_projection: false }, 'base_model.pvera_A'],
  ['llama/tinylora', { save_projection: false }, 'save_projection'],
  ['llama/tinylora', { weight_tying: 2 }, 'weight_tying'],
  ['llama/tinylora', { weight_tying: 0 }, ''],
  ['llama/vblora', { topk: 17 }, 'topk'],
  ['llama/vblora', { vector_length: 48 }, 'vector_length'],
  ['llama/vblora', { save_only_topk_weights: true }, ''],
  ['llama/vera', { r: 8 }, 'r'],
  ['llama/vera', { save_projection: false }, 'base_model.vera_A'],
  ['llama/vera_nosave', { save_projection: true }, 'base_model.vera_A'],
  ['llama/vera_nosave', { projection_prng_key: 0.5 }, 'projection_prng_key'],
  ['llama/adaption_prompt', { adapter_layers: 3 }, 'adapter_layers'],
  ['llama/adaption_prompt', { target_modules: 'attn' }, 'target_modules'],
  ['llama/adaption_prompt', { adapter_len: 4 }, ''],
  ['llama/boft', { boft_block_num: 8 }, 'boft_block_num'],
  ['llama/boft', { boft_block_size: 7 }, 'boft_block_size'],
  ['llama/boft', { boft_block_size: 0 }, 'boft_block_num'],
  ['llama/boft_butterfly', { boft_n_butterfly_factor: 2 }, ''],
  ['llama/c3a', { block_size: 24 }, 'block_size'],
  ['llama/c3a', { block_size_pattern: {} }, ''],
  ['phi3/c3a_fused', { block_size: 64 }, ''],
  ['llama/fourierft', { n_frequency: 41 }, 'n_frequency'],
  ['llama/fourierft', { random_loc_seed: 0.5 }, 'random_loc_seed'],
  ['llama/frod', { save_projection: false }, 'save_projection'],
  ['llama/frod', { sparse_rate: 0.05 }, 'sparse_rate'],
  ['llama/glora', { config_A_B: 'vector' }, ''],
  ['llama/glora', { bias: 'all' }, 'bias'],
  ['llama/glora', { r: 4 }, 'r'],
  ['llama/hira', { r: 3 }, 'r'],
  ['llama/lora_kasa', { kasa_config: null }, ''],
  ['llama/lora_kasa', { kasa_config: { beta: 1, order: 2 } }, 'kasa_config.order'],
  ['llama/lora_kasa', { alora_invocation_tokens: [5] }, 'kasa_config'],
  ['llama/lora_parameters', { use_dora: true }, 'target_parameters'],
  ['llama/lora_parameters', { target_parameters: ['q_proj.weight'] }, ''],
  ['llama/osf', { effective_rank: 30 }, 'effective_rank'],
  ['llama/osf', { effective_rank: -1 }, 'effective_rank'],
  ['llama/osf', { rank_pattern: {} }, 'effective_rank'],
  ['llama/poly', { task_id: undefined }, 'task_id'],
  ['llama/poly', { task_id: 3 }, 'task_id'],
  ['llama/poly', { n_splits: 3 }, 'n_splits'],
  ['llama/randlora', { save_projection: false }, 'save_projection'],
  ['llama/randlora', { r: 9 }, ''],
  ['llama/road_1', { variant: 'road_3' }, 'variant'],
  ['llama/road_1', { group_size: 7 }, 'group_size'],
  ['llama/road_1', { group_size: 48 }, 'group_size'],
  ['phi3/road_fused', { group_size: 128 }, 'group_size'],
  ['llama/shira', { r: 3 }, 'r'],
  ['llama/supertuning', { sparsity: 1 }, 'sparsity'],
  ['llama/supertuning', { sparsity: 0.9 }, 'sparsity'],
  ['llama/supertuning', { lora_alpha: 2 }, 'lora_alpha'],
  ['llama/supertuning', { save_precomputed_indices: false }, 'save_precomputed_indices'],
  ['llama/supertuning_lora', { r: 3 }, 'r'],
  ['llama/unilora', { save_indices: false }, 'save_indices'],
  ['llama/unilora', { r: 3 }, 'r'],
  ['llama/waveft', { wavelet_family: 'db2' }, 'wavelet_family'],
  ['llama/waveft', { n_frequency_pattern: {} }, 'n_frequency'],
  ['llama/waveft_plain', { proportional_parameters: false }, 'n_frequency'],
  ['llama/lora_all', { peft_type: 'SHADOW' }, 'peft_type'],
  ['llama/lora_all', { peft_type: 'XLORA' }, 'peft_type'],
]

describe('every kind refuses', () => {
  for (const name of GOLDENS) {
    it(`${name}: a missing tensor, a NaN, another layer, an extra tensor, an unknown key`, () => {
      const tensors = readAdapterTensors(name)
      for (const [key, tensor] of Object.entries(tensors)) {
        // Layer 0 and what all share stand for the rest.
        if (/\.(layers|h)\.1\./.test(key)) continue
        const others = Object.fromEntries(Object.entries(tensors).filter(([other]) => other !== key))
        assertRefused(name, { tensors: () => others }, key)
        if (tensor.dtype === 'F32' && tensor.data.length > 0)
          assertRefused(name, { tensors: () => ({ ...others, [key]: withNan(tensor) }) }, key)
      }
      const renamed = Object.entries(tensors).map(([key, tensor]) => [key.replace(/\.(layers|h)\.1\./, '.$1.7.'), tensor])
      // An adapter of embedding and head has no layers.
      if (renamed.some(([key]) => String(key).includes('.7.')))
        assertRefused(name, { tensors: () => Object.fromEntries(renamed) }, '')
      const extra = `${LAYER1_Q}.magic`
      assertRefused(name, { tensors: () => ({ ...tensors, [extra]: f32([1], [1]) }) }, extra)
      assertRefused(name, { config: { use_magic: true } }, 'use_magic')
    })
  }

  for (const [name, config, field] of REFUSED_CONFIGS) {
    it(`${name} with ${JSON.stringify(config)}`, () => void assertRefused(name, { config }, field))
  }

  it('a target that GPT-2 keeps as Conv1D, where the type is not defined for it', () => {
    const unset = { vera_dropout: 0, d_initial: 0, save_projection: false, fan_in_fan_out: false }
    const error = assertRefused('gpt2/vera_gpt2', { config: { peft_type: 'HRA', ...unset } }, 'target_modules')
    assert.match(error.message, /Conv1D/)
  })

  it('VBLORA indices outside the bank, and weights of no softmax', () => {
    const key = `${LAYER1_Q}.vblora_logits_A_topk_`
    const stored = readAdapterTensors('llama/vblora_topkonly')
    const indices = stored[`${key}indices`]!
    const far = { ...indices, data: Buffer.alloc(indices.data.length, 200) }
    const weights = stored[`${key}weights`]!
    const heavy = f32(weights.shape, new Array(weights.data.length / 4).fill(1.5))
    for (const [name, changed] of Object.entries({ indices: far, weights: heavy })) {
      const tensors = (all: Tensors) => ({ ...all, [key + name]: changed })
      assertRefused('llama/vblora_topkonly', { tensors }, '')
    }
  })

  it('HRA columns that depend on each other, under apply_GS', () => {
    const twice = (all: Tensors) => ({ ...all, [`${LAYER1_Q}.hra_u`]: f32([64, 4], new Array(256).fill(0.5)) })
    assertRefused('llama/hra_gs', { tensors: twice }, `${LAYER1_Q}.hra_u`)
  })
})

/** Keys whose value changes the outputs, or, without a match, does not. */
const HONOURED = [
  'alpha',
  'alpha_pattern',
  'apply_GS',
  'coft',
  'eps',
  'lora_alpha',
  'num_cayley_neumann_terms',
  'projection_prng_key',
  'r',
  'random_loc_seed',
  'randlora_alpha',
  'scaling',
  'topk',
  'use_cayley_neumann',
  'use_idwt',
  'use_rslora',
]

/** Keys PEFT reads while training, or not at all for such a file, or moves back to what divides a width. */
const INERT = new Set(
  `alpha_pattern auto_mapping base_model_name_or_path beta1 beta2 block_size_pattern boft_dropout boft_n_butterfly_factor config_C config_D_E corda_config d_initial decompose_both decompose_factor deft_dropout delora_lambda
  deltaT ensure_weight_tying eps eva_config exclude_modules fan_in_fan_out generator_seed gralora_dropout inference_mode
  init_ia3_weights init_logits_std init_lora_weights init_scale init_v_bound init_vector_bank_bound init_weights lambda_pattern
  loftq_config lora_dropout lora_ga_config megatron_config megatron_core mini_r miss_dropout module_dropout monteclora_config
  num_cayley_neumann_terms oft_block_size orth_reg_weight peft_version projection_prng_key projection_seed pvera_dropout qalora_group_size r rank_dropout
  rank_dropout_scale rank_pattern revision target_r tfinal tinit tinylora_dropout total_step use_effective_conv2d use_qalora
  vblora_dropout velora_config vera_dropout frod_dropout hira_dropout init_theta_d_bound mask_type n_frequency_pattern progressbar proj_seed proportional_parameters randlora_dropout
  random_seed regularization_alpha runtime_offload_base_weight select_top sparse target_svd_config unilora_dropout very_sparse wavelet_family`.split(
    /\s+/,
  ),
)

describe('every config value', () => {
  for (const name of GOLDENS) {
    it(`of ${name}, changed, changes the outputs as PEFT means it, or is refused, or is known to be inert`, () => {
      const path = join(import.meta.dirname, '../fixtures/adapters', name, 'adapter_config.json')
      const config = JSON.parse(readFileSync(path, 'utf8')) as Json
      const { digest } = compileChanged(name).adapter
      for (const [key, value] of Object.entries(config)) {
        const found = digestOrNull(name, { [key]: mutated(value) })
        if (found === null) continue
        assert.ok(found === digest ? INERT.has(key) : HONOURED.includes(key), key)
        // AdaLoRA's divisor is init_r, GLORA reads r where a path has factors, OFT moves it to a divisor, and of LOKR's whole factors r
        // divides the scale alone; elsewhere r is a shape.
        const hasNoRank =
          ['ADALORA', 'OFT'].includes(String(config['peft_type'])) || (config['config_A_B'] ?? 'lora') !== 'lora'
        if (key === 'r') assert.ok(found === digest ? hasNoRank : name === 'llama/lokr_full')
      }
    })
  }
})

function assertRefused(name: string, change: AdapterChange, field: string): LorikeetError {
  try {
    compileChanged(name, change)
  } catch (error) {
    assert.ok(error instanceof LorikeetError, String(error))
    assert.equal(error.code, 'ADAPTER_REFUSED', error.message)
    if (field !== '') assert.equal(error.field, field, error.message)
    return error
  }
  return assert.fail(`${name} was served`)
}

function digestOrNull(name: string, config: Json): string | null {
  try {
    return compileChanged(name, { config }).adapter.digest
  } catch (error) {
    assert.ok(error instanceof LorikeetError && error.code === 'ADAPTER_REFUSED', String(error))
    assert.ok(error.field !== undefined && error.field !== null)
    return null
  }
}

function mutated(value: unknown): unknown {
  if (typeof value === 'boolean') return !value
  if (typeof value === 'number') return value + 1
  if (Array.isArray(value)) return ['mutated']
  return value !== null && typeof value === 'object' ? { mutated: 1 } : 'mutated'
}

function withNan(tensor: TensorData): TensorData {
  const values = floats(tensor)
  values[values.length - 1] = Number.NaN
  return f32(tensor.shape, [...values])
}

function floats({ data }: TensorData): Float32Array {
  return new Float32Array(Uint8Array.from(data).buffer)
}
