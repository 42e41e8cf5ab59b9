// Kinds that fold into low rank, vectors and replaced weights: what they refuse, and what their folds are exactly. That they
// compute what PEFT computes is shown by the golden adapters (test/backend).

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { orthonormalFactor } from '../../src/adapter/formats/peft/deft.ts'
import { compactFactor } from '../../src/adapter/formats/peft/hra.ts'
import { MersenneTwister } from '../../src/adapter/formats/peft/mersenne-twister.ts'
import { drawProjection } from '../../src/adapter/formats/peft/vera.ts'
import type { LowRank, Primitive, Replace, Site } from '../../src/adapter/primitive.ts'
import { LorikeetError } from '../../src/errors.ts'
import { type AdapterChange, compileChanged, goldenModel, readAdapterTensors } from '../support/adapter-dir.ts'
import type { Json, Tensors } from '../support/model-dir.ts'
import { createRandom, randomArray } from '../support/random-adapter.ts'
import { f32, type TensorData } from '../support/safetensors-file.ts'

const LAYER1_Q = 'base_model.model.model.layers.1.self_attn.q_proj'

/** Fixtures that stand for their kind. */
const GOLDENS = [
  'llama/adalora',
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
  ['llama/oft', { coft: true }, 'coft'],
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
  'lora_alpha',
  'num_cayley_neumann_terms',
  'projection_prng_key',
  'r',
  'scaling',
  'topk',
  'use_cayley_neumann',
  'use_rslora',
]

/** Keys PEFT reads while training, or not at all for such a file, or moves back to what divides a width. */
const INERT = new Set(
  `alpha_pattern auto_mapping base_model_name_or_path beta1 beta2 corda_config d_initial decompose_both decompose_factor deft_dropout delora_lambda
  deltaT ensure_weight_tying eps eva_config exclude_modules fan_in_fan_out generator_seed gralora_dropout inference_mode
  init_ia3_weights init_logits_std init_lora_weights init_scale init_v_bound init_vector_bank_bound init_weights lambda_pattern
  loftq_config lora_dropout lora_ga_config megatron_config megatron_core mini_r miss_dropout module_dropout monteclora_config
  num_cayley_neumann_terms oft_block_size orth_reg_weight peft_version projection_prng_key projection_seed pvera_dropout qalora_group_size r rank_dropout
  rank_dropout_scale rank_pattern revision target_r tfinal tinit tinylora_dropout total_step use_effective_conv2d use_qalora
  vblora_dropout velora_config vera_dropout`.split(/\s+/),
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
        // AdaLoRA's divisor is init_r, and of LOKR's whole factors r divides the scale alone; elsewhere r is a shape.
        if (key === 'r') assert.ok(found === digest ? config['peft_type'] === 'ADALORA' : name === 'llama/lokr_full')
      }
    })
  }
})

describe('folds', () => {
  it('ADALORA divides by the rank before pruning; a module without survivors has no site', () => {
    const { sites } = compileChanged('llama/adalora').adapter
    assert.equal(lowRank(sites, 'layers.0.q').scale, 16 / (6 + 1e-5))
    const pruned = compileChanged('llama/adalora_pruned').adapter.sites
    assert.ok(!pruned.has('layers.0.q'))
    assert.equal(lowRank(pruned, 'layers.0.v').rank, 4)
    assert.equal(lowRank(pruned, 'layers.0.v').scale, 16 / (6 + 1e-5))
    const unscaled = compileChanged('llama/adalora', { config: { lora_alpha: -1 } }).adapter.sites
    assert.equal(lowRank(unscaled, 'layers.0.q').scale, 6 / (6 + 1e-5))
  })

  it('QA-LoRA reads means of groups, times their number', () => {
    const pooled = randomArray(createRandom(8), 4 * 4, 0.5)
    const path = 'base_model.model.model.layers.0.self_attn.q_proj'
    const config = { target_modules: ['layers.0.self_attn.q_proj'], use_qalora: true, qalora_group_size: 16 }
    const tensors = (all: Tensors) => ({
      [`${path}.lora_A.weight`]: f32([4, 4], [...pooled]),
      [`${path}.lora_B.weight`]: all[`${path}.lora_B.weight`]!,
    })
    const { a } = lowRank(compileChanged('llama/lora_all', { config, tensors }).adapter.sites, 'layers.0.q')
    const x = randomArray(createRandom(9), 64, 1)
    for (let k = 0; k < 4; k++) {
      const found = x.reduce((sum, value, i) => sum + value * a[k * 64 + i]!, 0)
      let expected = 0
      for (let group = 0; group < 4; group++) {
        const mean = x.subarray(group * 16, (group + 1) * 16).reduce((sum, value) => sum + value, 0) / 16
        expected += pooled[k * 4 + group]! * mean * 4
      }
      assert.ok(Math.abs(found - expected) < 1e-5)
    }
  })

  it('IA3 splits a fused vector, and shares one over the inputs', () => {
    const { sites } = compileChanged('phi3/ia3_fused').adapter
    const fused = floats(readAdapterTensors('phi3/ia3_fused')['base_model.model.model.layers.0.self_attn.qkv_proj.ia3_l']!)
    const values = ['q', 'k', 'v'].map((role) => sites.get(`layers.0.${role}` as Site)?.[0])
    for (const vector of values) assert.ok(vector?.kind === 'vector' && vector.slot === 'output-scale')
    assert.deepEqual(
      values.flatMap((vector) => [...(vector as { values: Float32Array }).values]),
      [...fused],
    )
    const [gate, up] = [sites.get('layers.0.gate')?.[0], sites.get('layers.0.up')?.[0]]
    assert.ok(gate?.kind === 'vector' && up?.kind === 'vector' && gate.slot === 'input-scale')
    assert.equal(gate.values, up.values)
  })

  it('VERA modules of one width share their A, MISS modules too', () => {
    for (const [name, one, other] of [
      ['llama/vera', 'layers.0.q', 'layers.1.v'],
      ['llama/miss', 'layers.0.q', 'layers.1.up'],
    ] as const) {
      const { sites } = compileChanged(name).adapter
      assert.equal(lowRank(sites, one).a, lowRank(sites, other).a)
    }
  })

  it('LOHA as r² ranks and as a replaced weight are the same matrix', () => {
    const random = createRandom(5)
    const key = 'base_model.model.model.layers.0.self_attn.q_proj'
    const [w1a, w2a] = [randomArray(random, 64 * 2, 0.5), randomArray(random, 64 * 2, 0.5)]
    const [w1b, w2b] = [randomArray(random, 2 * 64, 0.5), randomArray(random, 2 * 64, 0.5)]
    const compile = (rank: number) => {
      const pad = (values: Float32Array, columns: boolean) =>
        f32(columns ? [64, rank] : [rank, 64], padded(values, columns, rank))
      const tensors = () => ({
        [`${key}.hada_w1_a`]: pad(w1a, true),
        [`${key}.hada_w1_b`]: pad(w1b, false),
        [`${key}.hada_w2_a`]: pad(w2a, true),
        [`${key}.hada_w2_b`]: pad(w2b, false),
      })
      const config = { target_modules: ['layers.0.self_attn.q_proj'], r: rank, alpha: 3 * rank }
      return compileChanged('llama/loha', { config, tensors }).adapter.sites.get('layers.0.q')![0]!
    }
    const thin = compile(2) as LowRank
    const dense = compile(6) as Replace
    assert.deepEqual([thin.kind, thin.rank, dense.kind], ['low-rank', 4, 'replace'])
    const weight = goldenModel('llama').read('layers.0.q')
    for (let i = 0; i < weight.length; i++) {
      let delta = 0
      for (let k = 0; k < 4; k++) delta += thin.b[Math.floor(i / 64) * 4 + k]! * thin.a[k * 64 + (i % 64)]!
      assert.ok(Math.abs(weight[i]! + thin.scale * delta - dense.weight[i]!) < 1e-6)
    }
  })

  it('LOKR by ranks and as a replaced weight are the same matrix', () => {
    const key = 'base_model.model.model.layers.0.self_attn.q_proj.lokr'
    const [one, two] = [randomArray(createRandom(6), 4 * 4, 0.5), randomArray(createRandom(7), 16 * 16, 0.5)]
    // Of rank 1, hence also a product.
    const [left, right] = [randomArray(createRandom(8), 16, 0.5), randomArray(createRandom(9), 16, 0.5)]
    for (let i = 0; i < 256; i++) two[i] = left[Math.floor(i / 16)]! * right[i % 16]!
    const compile = (factors: Tensors) => {
      const config = { target_modules: ['layers.0.self_attn.q_proj'], r: 1, alpha: 3 }
      const tensors = () => ({ [`${key}_w1`]: f32([4, 4], [...one]), ...factors })
      return compileChanged('llama/lokr_full', { config, tensors }).adapter.sites.get('layers.0.q')![0]!
    }
    const dense = compile({ [`${key}_w2`]: f32([16, 16], [...two]) }) as Replace
    const thin = compile({ [`${key}_w2_a`]: f32([16, 1], [...left]), [`${key}_w2_b`]: f32([1, 16], [...right]) }) as LowRank
    assert.deepEqual([thin.kind, thin.rank, dense.kind], ['low-rank', 4, 'replace'])
    const weight = goldenModel('llama').read('layers.0.q')
    for (let i = 0; i < weight.length; i++) {
      const [o, n] = [Math.floor(i / 64), i % 64]
      const delta = 3 * one[Math.floor(o / 16) * 4 + Math.floor(n / 16)]! * two[(o % 16) * 16 + (n % 16)]!
      let found = 0
      for (let k = 0; k < 4; k++) found += thin.scale * thin.b[o * 4 + k]! * thin.a[k * 64 + n]!
      assert.ok(Math.abs(weight[i]! + delta - dense.weight[i]!) < 1e-6)
      assert.ok(Math.abs(found - delta) < 1e-6)
    }
  })

  it('OFT of writers that stored no version is served as trained, with a warning', () => {
    const { adapter, warnings } = compileChanged('llama/oft', { config: { peft_version: undefined } })
    assert.notEqual(adapter.digest, compileChanged('llama/oft').adapter.digest)
    assert.match(warnings.join(), /peft_version/)
    const older = compileChanged('llama/oft', { config: { peft_version: '0.17.1' } })
    assert.equal(older.adapter.digest, adapter.digest)
    for (const config of [{ num_cayley_neumann_terms: 2 }, { use_cayley_neumann: false }])
      assert.deepEqual(compileChanged('llama/oft', { config: { ...config, peft_version: undefined } }).warnings, [])
  })

  it('a head that is replaced and adapted is adapted once, from the stored weight', () => {
    const random = createRandom(4)
    const stored = randomArray(random, 320 * 64, 1)
    const head = 'base_model.model.lm_head'
    const tensors = () => ({
      [`${head}.base_layer.weight`]: f32([320, 64], [...stored]),
      [`${head}.oft_R.weight`]: f32([4, 120], [...randomArray(random, 480, 0.2)]),
    })
    const config = { target_modules: ['lm_head'], use_cayley_neumann: false }
    const { sites } = compileChanged('llama/oft', { config, tensors }).adapter
    const [weight, second] = sites.get('lmHead') ?? []
    assert.ok(weight?.kind === 'replace' && second === undefined)
    assert.notDeepEqual(weight.weight, stored)
    for (const values of [stored, weight.weight])
      assertNear([Math.hypot(...values.subarray(0, 64))], [Math.hypot(...stored.subarray(0, 64))], 1e-5)
  })

  it('the compact form of a product of reflections is that product', () => {
    const [rank, width] = [5, 12]
    const random = createRandom(2)
    const vectors = new Float64Array(randomArray(random, rank * width, 1))
    let explicit: number[] = Array.from({ length: width * width }, (_, i) => (i % (width + 1) === 0 ? 1 : 0))
    for (let k = 0; k < rank; k++) {
      const v = vectors.subarray(k * width, (k + 1) * width)
      const norm = Math.hypot(...v)
      for (let i = 0; i < width; i++) v[i]! /= norm
      const image = Array.from({ length: width }, (_, i) => v.reduce((sum, x, j) => sum + explicit[i * width + j]! * x, 0))
      explicit = explicit.map((value, i) => value - 2 * image[Math.floor(i / width)]! * v[i % width]!)
    }
    const factor = compactFactor(vectors, rank)
    for (let i = 0; i < width * width; i++) {
      let value = i % (width + 1) === 0 ? 1 : 0
      for (let k = 0; k < rank; k++) {
        for (let l = 0; l < rank; l++)
          value -= vectors[k * width + Math.floor(i / width)]! * factor[k * rank + l]! * vectors[l * width + (i % width)]!
      }
      assert.ok(Math.abs(value - explicit[i]!) < 1e-14)
    }
  })

  it('an untrained HRA, whose reflections cancel in pairs, is the base model; a zero column reflects nothing', () => {
    const tensors = (all: Tensors) =>
      Object.fromEntries(
        Object.entries(all).map(([key, tensor]) => {
          const values = floats(tensor)
          return [
            key,
            f32(
              tensor.shape,
              Array.from(values, (_, i) => (i % 4 < 2 ? values[i - (i % 4)]! : 0)),
            ),
          ]
        }),
      )
    const { adapter, warnings } = compileChanged('llama/hra', { tensors })
    const { a, b, rank } = lowRank(adapter.sites, 'layers.0.q')
    for (let i = 0; i < 64 * 64; i++) {
      let delta = 0
      for (let k = 0; k < rank; k++) delta += b[Math.floor(i / 64) * rank + k]! * a[k * 64 + (i % 64)]!
      assert.ok(Math.abs(delta) < 1e-6)
    }
    assert.match(warnings[0] ?? '', /zero/)
  })

  it('the orthonormal factor has the signs of LAPACK', () => {
    // R = Qᵀ P has a diagonal of the sign opposite to the element that each reflection started from.
    const q = orthonormalFactor(Float32Array.from([3, 1, 4, 1]), 2, 2)
    const expected = [-0.6, -0.8, -0.8, 0.6]
    for (let i = 0; i < 4; i++) assert.ok(Math.abs(q[i]! - expected[i]!) < 1e-12, `${[...q]}`)
  })
})

describe('the random stream of PyTorch', () => {
  it('draws what torch draws', () => {
    assert.equal(new MersenneTwister(0).nextUint32(), 2357136044)
    assert.equal(new MersenneTwister(2 ** 32).nextUint32(), 2357136044, 'the low 32 bits of a seed count')
    assertNear(new MersenneTwister(0).uniform(2, 0, 1), [0.49625659, 0.7682218])
  })

  it('regenerates the projections of VERA', () => {
    const random = new MersenneTwister(0)
    assertNear(
      drawProjection(random, 2, 4),
      [-0.00916945, 0.65700656, -1.0080204, -0.90133756, -0.47171584, 0.32842436, -0.02426609, 0.97108734],
    )
    assertNear(drawProjection(random, 3, 2), [-0.15370919, 0.45832238, -0.52344841, -0.34046122, -1.65471208, -1.14710629])
  })
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

function lowRank(sites: ReadonlyMap<Site, readonly Primitive[]>, site: Site): LowRank {
  const [primitive] = sites.get(site) ?? []
  assert.ok(primitive?.kind === 'low-rank', `low rank at ${site}`)
  return primitive
}

/** Zero columns after the two of [64, 2], or zero rows after the two of [2, 64]. */
function padded(values: Float32Array, columns: boolean, rank: number): number[] {
  if (!columns) return [...values, ...new Array<number>((rank - 2) * 64).fill(0)]
  return Array.from({ length: 64 * rank }, (_, i) => (i % rank < 2 ? values[Math.floor(i / rank) * 2 + (i % rank)]! : 0))
}

function floats({ data }: TensorData): Float32Array {
  return new Float32Array(Uint8Array.from(data).buffer)
}

function assertNear(found: ArrayLike<number>, expected: readonly number[], tolerance = 5e-8): void {
  assert.equal(found.length, expected.length)
  for (const [i, value] of expected.entries())
    assert.ok(Math.abs(found[i]! - value) < tolerance, `${i}: ${found[i]} beside ${value}`)
}
