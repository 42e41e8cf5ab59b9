// Compiled primitives against the formulas of the papers, worked out here in float64 from the file's own tensors.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { LowRank, Primitive, Replace, Rows, Site, Vector } from '../../src/adapter/primitive.ts'
import type { ModelSource } from '../../src/model/model-source.ts'
import { compileChanged, goldenModel, readAdapterTensors } from '../support/adapter-dir.ts'
import type { Json, Tensors } from '../support/model-dir.ts'
import { createRandom, randomArray } from '../support/random-adapter.ts'
import { f32, type TensorData } from '../support/safetensors-file.ts'

const PREFIX = 'base_model.model.'

type Sites = ReadonlyMap<Site, readonly Primitive[]>

describe('LORA scales', () => {
  const scaleOf = (config: Json, site: Site): number =>
    lowRank(compileChanged('llama/lora_all', { config }).adapter.sites, site).scale

  it('alpha over rank, or over its root with rsLoRA', () => {
    assert.equal(scaleOf({}, 'layers.0.q'), 4)
    assert.equal(scaleOf({ use_rslora: true }, 'layers.0.q'), 8)
    assert.equal(scaleOf({ lora_alpha: 0 }, 'layers.0.q'), 0)
    assert.equal(scaleOf({ lora_alpha: -2.5 }, 'layers.0.q'), -0.625)
  })

  it('the first pattern in file order that is a dotted suffix', () => {
    const alpha_pattern = {
      proj: 99,
      'layers.1.self_attn.q_proj': 8,
      q_proj: 12,
      '^k_proj': 99,
      'model.layers.0.mlp.up.proj': 20,
    }
    assert.equal(scaleOf({ alpha_pattern }, 'layers.1.q'), 2)
    assert.equal(scaleOf({ alpha_pattern }, 'layers.0.q'), 3)
    assert.equal(scaleOf({ alpha_pattern }, 'layers.0.k'), 4, 'an anchored suffix never matches')
    assert.equal(scaleOf({ alpha_pattern }, 'layers.0.up'), 5, 'a dot matches any character')
  })

  it('rsLoRA takes the root of the rank of the pattern', () => {
    const { adapter } = compileChanged('llama/lora_rankpattern', { config: { use_rslora: true } })
    assert.equal(lowRank(adapter.sites, 'layers.0.down').scale, 8 / Math.sqrt(2))
    assert.equal(lowRank(adapter.sites, 'layers.1.q').scale, 8 / Math.sqrt(12))
    assert.equal(adapter.maxRank, 12)
  })

  it('warns where an old file may have meant another alpha', () => {
    const patterns = { rank_pattern: { q_proj: 4 }, alpha_pattern: { q_proj: 8 } }
    assert.equal(compileChanged('llama/lora_all', { config: patterns }).warnings.length, 0)
    assert.equal(compileChanged('llama/lora_all', { config: { ...patterns, peft_version: undefined } }).warnings.length, 1)
  })
})

describe('LORA targets', () => {
  const sitesOf = (config: Json, keep: RegExp): string[] => {
    const tensors = (all: Tensors) => Object.fromEntries(Object.entries(all).filter(([key]) => keep.test(key)))
    return [...compileChanged('llama/lora_all', { config, tensors }).adapter.sites.keys()].sort()
  }

  it('lists, patterns, all-linear, exclusions and layers', () => {
    assert.deepEqual(sitesOf({ target_modules: ['q_proj'] }, /q_proj/), ['layers.0.q', 'layers.1.q'])
    assert.deepEqual(sitesOf({ target_modules: ['layers.1.self_attn.q_proj'] }, /1.*q_proj/), ['layers.1.q'])
    assert.deepEqual(sitesOf({ target_modules: '.*(?P<last>[qk])_proj$' }, /[qk]_proj/), [
      'layers.0.k',
      'layers.0.q',
      'layers.1.k',
      'layers.1.q',
    ])
    assert.equal(sitesOf({ target_modules: 'all-linear' }, /./).length, 14)
    assert.equal(sitesOf({ exclude_modules: '.*mlp.*' }, /self_attn/).length, 8)
    assert.equal(sitesOf({ exclude_modules: ['q_proj', 'layers.0.mlp.up_proj'] }, /(?<!q|0.mlp.up)_proj/).length, 11)
    assert.deepEqual(sitesOf({ target_modules: ['q_proj'], layers_to_transform: 1 }, /1.*q_proj/), ['layers.1.q'])
    assert.deepEqual(
      sitesOf({ target_modules: ['q_proj'], layers_to_transform: [0, 5], layers_pattern: ['blocks', 'layers'] }, /0.*q_proj/),
      ['layers.0.q'],
    )
    assert.equal(
      sitesOf(
        { target_modules: ['model.layers.0.self_attn.q_proj', 'k_proj'], layers_to_transform: [1] },
        /0.*q_proj|1.*k_proj/,
      ).length,
      2,
    )
  })

  it('null means what PEFT takes for the architecture', () => {
    assert.deepEqual(sitesOf({ target_modules: null }, /[qv]_proj/), ['layers.0.q', 'layers.0.v', 'layers.1.q', 'layers.1.v'])
  })

  it('accepts the names of a multimodal wrapper around the same decoder', () => {
    const tensors = (all: Tensors) =>
      Object.fromEntries(
        Object.entries(all).map(([key, tensor]) => [key.replace('model.layers', 'model.language_model.layers'), tensor]),
      )
    const { adapter } = compileChanged('llama/lora_all', { tensors })
    assert.equal(adapter.digest, compileChanged('llama/lora_all').adapter.digest)
  })

  it('one A of a fused module serves its three sites, B is cut by rows', () => {
    const { sites } = compileChanged('phi3/lora_alllinear_rank1').adapter
    const name = `${PREFIX}model.layers.0.self_attn.qkv_proj.lora_B.weight`
    const b = floats(readAdapterTensors('phi3/lora_alllinear_rank1')[name]!)
    const [q, k, v] = (['q', 'k', 'v'] as const).map((role) => lowRank(sites, `layers.0.${role}`))
    assert.equal(q!.a, k!.a)
    assert.equal(q!.a, v!.a)
    assert.deepEqual([...q!.b, ...k!.b, ...v!.b], [...b])
  })

  it('says when B was never trained', () => {
    const key = `${PREFIX}model.layers.0.self_attn.q_proj.lora_B.weight`
    const tensors = (all: Tensors) => ({ ...all, [key]: f32([64, 4], new Array<number>(256).fill(0)) })
    const { warnings } = compileChanged('llama/lora_all', { tensors })
    assert.equal(warnings.length, 1)
    assert.match(warnings[0]!, /layers\.0\.self_attn\.q_proj.*zero/)
  })
})

describe('DoRA', () => {
  const random = createRandom(7)
  const rank = 3
  const config = { use_dora: true, r: rank, lora_alpha: 5, rank_pattern: {}, fan_in_fan_out: true }

  /** Config and tensors of one targeted module. */
  const single = (path: string, out: number, width: number, isEmbedding = false) => {
    const names = isEmbedding ? ['lora_embedding_A', 'lora_embedding_B'] : ['lora_A.weight', 'lora_B.weight']
    const [outB, inA] = isEmbedding ? [width, out] : [out, width]
    const tensors = {
      [`${PREFIX}${path}.${names[0]}`]: randomTensor(random, [rank, inA]),
      [`${PREFIX}${path}.${names[1]}`]: randomTensor(random, [outB, rank]),
      [`${PREFIX}${path}.lora_magnitude_vector`]: randomTensor(random, [outB]),
    }
    return { config: { ...config, target_modules: [path] }, tensors }
  }

  for (const [adapter, path, out, width, parts] of [
    ['llama/lora_all', 'model.layers.0.mlp.down_proj', 64, 128, ['layers.0.down']],
    ['llama/lora_all', 'lm_head', 320, 64, ['lmHead']],
    ['llama3rope/lora_all', 'lm_head', 320, 64, ['lmHead']],
    ['phi3/lora_all', 'model.layers.1.self_attn.qkv_proj', 128, 64, ['layers.1.q', 'layers.1.k', 'layers.1.v']],
    ['gpt2/lora_gpt2_conv1d', 'transformer.h.0.attn.c_attn', 192, 64, ['layers.0.q', 'layers.0.k', 'layers.0.v']],
  ] as const) {
    it(`rows of ${path} of ${adapter}`, () => {
      const model = goldenModel(adapter.split('/')[0]!)
      const change = single(path, out, width)
      const { sites } = compileChanged(adapter, { config: change.config, tensors: () => change.tensors }).adapter
      const weight = parts.flatMap((site) => [...baseWeight(model, site)])
      const [a, b, magnitude] = Object.values(change.tensors).map(floats)
      const expected = updated(weight, a!, b!, rank, 5 / 3, width)
      for (let o = 0; o < out; o++) {
        const row = expected.subarray(o * width, (o + 1) * width)
        const c = magnitude![o]! / Math.sqrt(row.reduce((sum, value) => sum + value * value, 0))
        for (let i = 0; i < width; i++) row[i] = row[i]! * c
      }
      assertClose(
        parts.flatMap((site) => effectiveWeight(model, sites, site)),
        expected,
      )
    })
  }

  for (const architecture of ['llama/lora_all', 'gemma2/lora_all']) {
    it(`columns of the embedding of ${architecture}`, () => {
      const model = goldenModel(architecture.split('/')[0]!)
      const change = single('model.embed_tokens', 320, 64, true)
      const { sites } = compileChanged(architecture, { config: change.config, tensors: () => change.tensors }).adapter
      const [a, b, magnitude] = Object.values(change.tensors).map(floats)
      const expected = updated([...model.read('embed')], transposed(b!, 64, rank), transposed(a!, rank, 320), rank, 5 / 3, 64)
      for (let d = 0; d < 64; d++) {
        let squares = 0
        for (let token = 0; token < 320; token++) squares += expected[token * 64 + d]! ** 2
        for (let token = 0; token < 320; token++) expected[token * 64 + d]! *= magnitude![d]! / Math.sqrt(squares)
      }
      const { a: foundA, b: foundB, scale } = lowRank(sites, 'embed')
      const factor = vector(sites, 'embed', 'factor')
      const found = updated(
        [...model.read('embed')].map((value, i) => value * factor[i % 64]!),
        transposed(foundB, 64, rank),
        transposed(foundA, rank, 320),
        rank,
        scale,
        64,
      )
      assertClose(found, expected)
    })
  }

  it('with the norms of the base as magnitude and B = 0 it is the base model', () => {
    const change = single('model.layers.0.mlp.down_proj', 64, 128)
    const weight = goldenModel('llama').read('layers.0.down')
    const norms = Array.from({ length: 64 }, (_, o) => Math.hypot(...weight.subarray(o * 128, (o + 1) * 128)))
    const tensors = {
      ...change.tensors,
      [`${PREFIX}model.layers.0.mlp.down_proj.lora_B.weight`]: f32([64, rank], new Array<number>(64 * rank).fill(0)),
      [`${PREFIX}model.layers.0.mlp.down_proj.lora_magnitude_vector`]: f32([64], norms),
    }
    const { sites } = compileChanged('llama/lora_all', { config: change.config, tensors: () => tensors }).adapter
    assertClose(vector(sites, 'layers.0.down', 'factor'), new Float64Array(64).fill(1))
  })

  it('takes the magnitude with or without .weight', () => {
    const tensors = (all: Tensors) =>
      Object.fromEntries(
        Object.entries(all).map(([key, tensor]) => [key.replace(/magnitude_vector$/, 'magnitude_vector.weight'), tensor]),
      )
    assert.equal(
      compileChanged('llama/lora_dora', { tensors }).adapter.digest,
      compileChanged('llama/lora_dora').adapter.digest,
    )
  })
})

describe('initialisations that change the base', () => {
  it('an untrained OLoRA adapter is the base model', () => {
    const weight = goldenModel('llama').read('layers.0.q')
    const [q, r] = gramSchmidt(weight, 64, 64, 4)
    const config = { init_lora_weights: 'olora', target_modules: ['layers.0.self_attn.q_proj'], lora_alpha: 6 }
    const path = `${PREFIX}model.layers.0.self_attn.q_proj`
    const tensors = { [`${path}.lora_A.weight`]: f32([4, 64], r), [`${path}.lora_B.weight`]: f32([64, 4], q) }
    const { sites } = compileChanged('llama/lora_all', { config, tensors: () => tensors }).adapter
    assert.equal(lowRank(sites, 'layers.0.q').rank, 8)
    assertClose(effectiveWeight(goldenModel('llama'), sites, 'layers.0.q'), weight)
  })

  it('PiSSA subtracts the best approximation: what is left has no larger singular value in its span', () => {
    const model = goldenModel('llama')
    const config = { init_lora_weights: 'pissa', target_modules: ['layers.0.self_attn.v_proj'] }
    const path = `${PREFIX}model.layers.0.self_attn.v_proj`
    const tensors = {
      [`${path}.lora_A.weight`]: f32([4, 64], new Array<number>(256).fill(0)),
      [`${path}.lora_B.weight`]: f32([32, 4], new Array<number>(128).fill(0)),
    }
    const { sites } = compileChanged('llama/lora_all', { config, tensors: () => tensors }).adapter
    const { a, b, rank, scale } = lowRank(sites, 'layers.0.v')
    const residual = effectiveWeight(model, sites, 'layers.0.v')
    const removed = updated(new Array<number>(32 * 64).fill(0), a, b, rank, -scale, 64)
    // Residual and removed part are orthogonal on both sides exactly when the removed part is made of singular triples.
    for (let o = 0; o < 32; o++) {
      for (let p = 0; p < 32; p++) {
        let sum = 0
        for (let i = 0; i < 64; i++) sum += residual[o * 64 + i]! * removed[p * 64 + i]!
        assert.ok(Math.abs(sum) < 1e-5, `rows ${o} and ${p}: ${sum}`)
      }
    }
    assert.ok(spectralNorm(residual, 32, 64) < smallestKept(removed, 32, 64), 'the largest triples were removed')
  })
})

describe('parameters of the base stored in the adapter', () => {
  it('biases of every module, or of the targeted ones, replace those of the base', () => {
    const model = goldenModel('qwen2')
    const key = (layer: number, role: string) => `${PREFIX}model.layers.${layer}.self_attn.${role}_proj`
    const biases = (wrapped: string) => {
      const tensors: Record<string, TensorData> = {}
      for (const layer of [0, 1]) {
        for (const role of ['q', 'k', 'v'] as const) {
          const values = [...model.read(`layers.${layer}.${role}.bias`)]
          if (role === 'k') values[0]! += 1
          tensors[`${key(layer, role)}${wrapped}.bias`] = f32([values.length], values)
        }
      }
      return tensors
    }
    for (const [mode, wrapped] of [
      ['all', '.base_layer'],
      ['lora_only', '.base_layer'],
      ['all', ''],
    ] as const) {
      const { sites } = compileChanged('qwen2/lora_all', {
        config: { bias: mode },
        tensors: (all) => ({ ...all, ...biases(wrapped) }),
      }).adapter
      assert.equal(vector(sites, 'layers.0.k', 'bias')[0], Math.fround(model.read('layers.0.k.bias')[0]! + 1))
      assert.equal(sites.get('layers.0.q')!.length, 1, 'a bias equal to the base costs nothing')
    }
  })

  it('biases of norms and fused linears (GPT-2)', () => {
    const model = goldenModel('gpt2')
    const random = createRandom(3)
    const tensors: Record<string, TensorData> = {}
    for (const { path, hasBias, outFeatures } of model.modules.values()) {
      if (hasBias)
        tensors[`${PREFIX}${path}${/c_(attn|proj|fc)$/.test(path) ? '.base_layer' : ''}.bias`] = randomTensor(random, [
          outFeatures,
        ])
    }
    const { sites } = compileChanged('gpt2/lora_gpt2_conv1d', {
      config: { bias: 'all' },
      tensors: (all) => ({ ...all, ...tensors }),
    }).adapter
    const fused = floats(tensors[`${PREFIX}transformer.h.0.attn.c_attn.base_layer.bias`]!)
    assert.deepEqual([...vector(sites, 'layers.0.k', 'bias')], [...fused.subarray(64, 128)])
    assert.deepEqual([...vector(sites, 'finalNorm', 'bias')], [...floats(tensors[`${PREFIX}transformer.ln_f.bias`]!)])
  })

  it('a stored embedding equal to the base is dropped, another replaces it, on a tied model on both sides', () => {
    assert.deepEqual(kinds(compileChanged('llama/lora_embed').adapter.sites, 'embed'), ['low-rank'])
    const key = `${PREFIX}model.embed_tokens.weight`
    const weight = [...goldenModel('llama3rope').read('embed')]
    weight[5]! += 1
    const { sites } = compileChanged('llama3rope/lora_all', {
      tensors: (all) => ({ ...all, [key]: f32([320, 64], weight) }),
    }).adapter
    assert.deepEqual(kinds(sites, 'embed'), ['replace'])
    assert.deepEqual(kinds(sites, 'lmHead'), ['replace'])
  })

  it('GPT-2 linears trained whole are stored [in, out]', () => {
    const random = createRandom(4)
    const path = `${PREFIX}transformer.h.0.mlp.c_fc`
    const stored = { [`${path}.weight`]: randomTensor(random, [64, 256]), [`${path}.bias`]: randomTensor(random, [256]) }
    const tensors = (all: Tensors) => ({
      ...Object.fromEntries(Object.entries(all).filter(([key]) => !key.startsWith(path))),
      ...stored,
    })
    const config = { modules_to_save: ['h.0.mlp.c_fc'], target_modules: ['c_attn', 'c_proj', 'c_fc'] }
    const { sites } = compileChanged('gpt2/lora_gpt2_conv1d', { config, tensors }).adapter
    const replace = only<Replace>(sites, 'layers.0.up', 'replace')
    assert.deepEqual(replace.shape, [256, 64])
    assert.equal(replace.weight[64 * 3 + 2], floats(stored[`${path}.weight`]!)[2 * 256 + 3])
  })
})

describe('tied models', () => {
  const saved =
    (...names: string[]) =>
    (all: Tensors) => {
      const random = createRandom(9)
      return {
        ...all,
        ...Object.fromEntries(names.map((name) => [`${PREFIX}${name}.weight`, randomTensor(random, [320, 64])])),
      }
    }

  it('a trained embedding does not leak into the head, nor the head into the embedding', () => {
    for (const [name, site, other] of [
      ['embed_tokens', 'embed', 'lmHead'],
      ['lm_head', 'lmHead', 'embed'],
    ] as const) {
      const path = name === 'lm_head' ? name : `model.${name}`
      const { sites } = compileChanged('llama3rope/lora_all', {
        config: { modules_to_save: [name] },
        tensors: saved(path),
      }).adapter
      assert.deepEqual(kinds(sites, site), ['replace'])
      assert.ok(!sites.has(other))
    }
  })

  it('two different saved matrices are both used', () => {
    const config = { modules_to_save: ['embed_tokens', 'lm_head'] }
    const { sites } = compileChanged('llama3rope/lora_all', { config, tensors: saved('model.embed_tokens', 'lm_head') }).adapter
    assert.notDeepEqual(only<Replace>(sites, 'embed', 'replace').weight, only<Replace>(sites, 'lmHead', 'replace').weight)
  })

  it('ensure_weight_tying makes one matrix serve both', () => {
    const config = { modules_to_save: ['embed_tokens'], ensure_weight_tying: true }
    const { sites } = compileChanged('llama3rope/lora_all', { config, tensors: saved('model.embed_tokens') }).adapter
    assert.equal(
      only<Replace>(sites, 'embed', 'replace').weight.buffer,
      only<Replace>(sites, 'lmHead', 'replace').weight.buffer,
    )
  })

  it('ensure_weight_tying gives the head the embedding update transposed', () => {
    const random = createRandom(10)
    const path = `${PREFIX}model.embed_tokens`
    const added = {
      [`${path}.lora_embedding_A`]: randomTensor(random, [4, 320]),
      [`${path}.lora_embedding_B`]: randomTensor(random, [64, 4]),
    }
    const config = {
      ensure_weight_tying: true,
      target_modules: ['q_proj', 'o_proj', 'gate_proj', 'down_proj', 'v_proj', 'k_proj', 'up_proj', 'embed_tokens'],
    }
    const { sites } = compileChanged('llama3rope/lora_all', { config, tensors: (all) => ({ ...all, ...added }) }).adapter
    const [embed, head] = [lowRank(sites, 'embed'), lowRank(sites, 'lmHead')]
    assert.equal(head.scale, embed.scale)
    assert.deepEqual(head.b, transposed(embed.a, 4, 320))
    assert.deepEqual(head.a, transposed(embed.b, 64, 4))
  })

  it('rows of tokens apply to both sides, sorted by id, unless each side has its own', () => {
    const random = createRandom(11)
    const embed = `${PREFIX}model.embed_tokens.token_adapter.trainable_tokens_delta`
    const head = `${PREFIX}lm_head.token_adapter.trainable_tokens_delta`
    const rows = randomTensor(random, [2, 64])
    for (const indices of [[9, 3], { embed_tokens: [9, 3] }, { embed_tokens: [9, 3], lm_head: [9, 3] }]) {
      const config = { trainable_token_indices: indices }
      const { sites } = compileChanged('llama3rope/lora_all', { config, tensors: (all) => ({ ...all, [embed]: rows }) }).adapter
      const found = only<Rows>(sites, 'embed', 'rows')
      assert.deepEqual([...found.rowIds], [3, 9])
      assert.deepEqual([...found.rows.subarray(64)], [...floats(rows).subarray(0, 64)])
      assert.deepEqual(only<Rows>(sites, 'lmHead', 'rows'), found)
    }
    const config = { trainable_token_indices: { embed_tokens: [9, 3], lm_head: [4] } }
    const own = { [embed]: rows, [head]: randomTensor(random, [1, 64]) }
    const { sites } = compileChanged('llama3rope/lora_all', { config, tensors: (all) => ({ ...all, ...own }) }).adapter
    assert.deepEqual([...only<Rows>(sites, 'lmHead', 'rows').rowIds], [4])
    const untied = compileChanged('llama/lora_trainable_tokens').adapter.sites
    assert.ok(untied.has('embed') && !untied.has('lmHead'))
  })
})

describe('TRAINABLE_TOKENS', () => {
  const config = {
    peft_type: 'TRAINABLE_TOKENS',
    token_indices: [5, 17, 200],
    trainable_token_indices: null,
    target_modules: null,
    r: null,
    lora_alpha: null,
    qalora_group_size: null,
    megatron_core: null,
    init_weights: true,
    bias: undefined,
  }
  const tensors = (all: Tensors) => ({
    [`${PREFIX}model.embed_tokens.trainable_tokens_delta`]:
      all[`${PREFIX}model.embed_tokens.token_adapter.trainable_tokens_delta`]!,
  })

  it('replaces rows of the embedding', () => {
    const { adapter } = compileChanged('llama/lora_trainable_tokens', { config, tensors })
    assert.equal(adapter.kind, 'TRAINABLE_TOKENS')
    const lora = compileChanged('llama/lora_trainable_tokens').adapter.sites
    assert.deepEqual(adapter.sites.get('embed'), lora.get('embed'))
    assert.equal(adapter.sites.size, 1)
  })
})

function only<T extends Primitive>(sites: Sites, site: Site, kind: T['kind']): T {
  const found = sites.get(site)?.filter((primitive) => primitive.kind === kind) ?? []
  assert.equal(found.length, 1, `one ${kind} at ${site}`)
  return found[0] as T
}

const lowRank = (sites: Sites, site: Site) => only<LowRank>(sites, site, 'low-rank')

const kinds = (sites: Sites, site: Site) => sites.get(site)?.map(({ kind }) => kind)

function vector(sites: Sites, site: Site, slot: Vector['slot']): Float32Array {
  const found = sites.get(site)?.find((primitive) => primitive.kind === 'vector' && primitive.slot === slot)
  assert.ok(found?.kind === 'vector', `a vector ${slot} at ${site}`)
  return found.values
}

function baseWeight(model: ModelSource, site: string): Float32Array {
  return model.read(site === 'lmHead' && model.spec.tiedHead ? 'embed' : site)
}

/** factor ⊙ W + scale · B A, as the primitives at a linear site say. */
function effectiveWeight(model: ModelSource, sites: Sites, site: Site): number[] {
  const { a, b, rank, scale } = lowRank(sites, site)
  const hasFactor = sites.get(site)!.some((primitive) => primitive.kind === 'vector' && primitive.slot === 'factor')
  const factor = hasFactor ? vector(sites, site, 'factor') : null
  const width = a.length / rank
  const weight = [...baseWeight(model, site)].map((value, i) => value * (factor?.[Math.floor(i / width)] ?? 1))
  return [...updated(weight, a, b, rank, scale, width)]
}

/** W + scale · B A with A [rank, width], B [rows, rank]. */
function updated(
  weight: readonly number[],
  a: Float32Array,
  b: Float32Array,
  rank: number,
  scale: number,
  width: number,
): Float64Array {
  return Float64Array.from(weight, (value, i) => {
    let sum = 0
    for (let k = 0; k < rank; k++) sum += b[Math.floor(i / width) * rank + k]! * a[k * width + (i % width)]!
    return value + scale * sum
  })
}

function transposed(values: Float32Array, rows: number, columns: number): Float32Array {
  return Float32Array.from(values, (_, i) => values[(i % rows) * columns + Math.floor(i / rows)]!)
}

function randomTensor(random: () => number, shape: readonly number[]): TensorData {
  return f32(shape, [
    ...randomArray(
      random,
      shape.reduce((product, size) => product * size, 1),
      0.5,
      0.1,
    ),
  ])
}

function floats({ data }: TensorData): Float32Array {
  return new Float32Array(Uint8Array.from(data).buffer)
}

function assertClose(found: ArrayLike<number>, expected: ArrayLike<number>): void {
  assert.equal(found.length, expected.length)
  for (let i = 0; i < found.length; i++) {
    const difference = Math.abs(found[i]! - expected[i]!)
    assert.ok(difference < 1e-5, `element ${i}: ${found[i]} beside ${expected[i]}`)
  }
}

/** First `count` columns of Q [rows, count] and rows of R [count, columns] of W = QR. */
function gramSchmidt(weight: Float32Array, rows: number, columns: number, count: number): [number[], number[]] {
  const basis: number[][] = []
  for (let k = 0; k < count; k++) {
    let column = Array.from({ length: rows }, (_, o) => weight[o * columns + k]!)
    for (const other of basis) {
      const share = other.reduce((sum, value, o) => sum + value * column[o]!, 0)
      column = column.map((value, o) => value - share * other[o]!)
    }
    const norm = Math.hypot(...column)
    basis.push(column.map((value) => value / norm))
  }
  const q = Array.from({ length: rows * count }, (_, i) => basis[i % count]![Math.floor(i / count)]!)
  const r = basis.flatMap((column) =>
    Array.from({ length: columns }, (_, i) => column.reduce((sum, value, o) => sum + value * weight[o * columns + i]!, 0)),
  )
  return [q, r]
}

/** Largest singular value, by power iteration. */
function spectralNorm(matrix: ArrayLike<number>, rows: number, columns: number): number {
  let vectorOf = Array.from({ length: columns }, (_, i) => Math.sin(i + 1))
  let norm = 0
  for (let step = 0; step < 300; step++) {
    const image = Array.from({ length: rows }, (_, o) =>
      vectorOf.reduce((sum, value, i) => sum + value * matrix[o * columns + i]!, 0),
    )
    const back = Array.from({ length: columns }, (_, i) =>
      image.reduce((sum, value, o) => sum + value * matrix[o * columns + i]!, 0),
    )
    norm = Math.sqrt(Math.hypot(...back))
    vectorOf = back.map((value) => value / norm ** 2)
  }
  return norm
}

/** Smallest of the four nonzero singular values: deflates the three largest. */
function smallestKept(matrix: Float64Array, rows: number, columns: number): number {
  const rest = matrix.slice()
  for (let removedCount = 0; removedCount < 3; removedCount++) {
    let vectorOf = Array.from({ length: columns }, (_, i) => Math.sin(i + 1))
    let image: number[] = []
    for (let step = 0; step < 300; step++) {
      image = Array.from({ length: rows }, (_, o) =>
        vectorOf.reduce((sum, value, i) => sum + value * rest[o * columns + i]!, 0),
      )
      const back = Array.from({ length: columns }, (_, i) =>
        image.reduce((sum, value, o) => sum + value * rest[o * columns + i]!, 0),
      )
      const norm = Math.hypot(...back)
      vectorOf = back.map((value) => value / norm)
    }
    for (let o = 0; o < rows; o++) for (let i = 0; i < columns; i++) rest[o * columns + i]! -= image[o]! * vectorOf[i]!
  }
  return spectralNorm(rest, rows, columns)
}
