// Writers that hang modules of their own into a model, or mix several at a linear: OpenDelta, MoE-PEFT.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Bottleneck } from '../../src/adapter/primitive.ts'
import { compile, PLAIN, refused, sitesOf } from '../support/writer-compile.ts'
import { floats, moePeft, openDelta, SHAPE, type WriterDir, writeOpenDelta, writePeft } from '../support/writer-dirs.ts'

describe('OpenDelta', () => {
  const { hidden, ff } = SHAPE
  const layers = [0, 1]
  const pair = (name: string, size: number, width: number) => ({
    [`${name}.modulelist.down_proj.weight`]: [size, width],
    [`${name}.modulelist.down_proj.bias`]: [size],
    [`${name}.modulelist.up_proj.weight`]: [width, size],
    [`${name}.modulelist.up_proj.bias`]: [width],
  })
  const readPair = ({ tensors }: WriterDir, path: string) => ({
    down: floats(tensors, `${path}.modulelist.down_proj.weight`),
    downBias: floats(tensors, `${path}.modulelist.down_proj.bias`),
    up: floats(tensors, `${path}.modulelist.up_proj.weight`),
    upBias: floats(tensors, `${path}.modulelist.up_proj.bias`),
  })
  const fields = { ...PLAIN, activation: 'gelu-tanh', scale: 1 } as const

  it('lora is a low-rank update', () => {
    const config = { modified_modules: ['q_proj'], lora_r: 4, lora_alpha: 16, lora_dropout: 0 }
    const dir = openDelta('lora', config, {
      'self_attn.q_proj.lora.lora_A': [4, hidden],
      'self_attn.q_proj.lora.lora_B': [hidden, 4],
    })
    const expected = layers.map((layer) => {
      const path = `model.layers.${layer}.self_attn.q_proj.lora`
      const [a, b] = [floats(dir.tensors, `${path}.lora_A`), floats(dir.tensors, `${path}.lora_B`)]
      return [`layers.${layer}.q`, { kind: 'low-rank', rank: 4, scale: 4, a, b, biasB: null }] as const
    })
    assert.deepEqual(compile(writeOpenDelta(dir)).sites, sitesOf(expected))
  })

  it('adapters stand behind linears and sublayers', () => {
    const config = { modified_modules: ['self_attn', 'down_proj'], bottleneck_dim: 8, non_linearity: 'gelu_new' }
    const shapes = { ...pair('self_attn.adapter', 8, hidden), ...pair('mlp.down_proj.adapter', 8, hidden) }
    const dir = openDelta('adapter', config, shapes)
    const expected = layers.flatMap((layer) => {
      const path = `model.layers.${layer}`
      return [
        [`layers.${layer}.attnOut`, { ...fields, input: 'sublayer', ...readPair(dir, `${path}.self_attn.adapter`) }],
        [`layers.${layer}.down`, { ...fields, input: 'site-output', ...readPair(dir, `${path}.mlp.down_proj.adapter`) }],
      ] as const
    })
    assert.deepEqual(compile(writeOpenDelta(dir)).sites, sitesOf(expected))
    // In the library's common structure the names are not the model's; the file tells where the adapters hang.
    const common = { ...dir, config: { ...dir.config, common_structure: true, modified_modules: ['attn@', 'ff@.w2@'] } }
    assert.deepEqual(compile(writeOpenDelta(common)).sites, sitesOf(expected))
  })

  it('low-rank adapters are products of a column and a row', () => {
    const config = { modified_modules: ['mlp'], reduction_factor: 8, low_rank_rank: 1, non_linearity: 'gelu_new' }
    const path = 'mlp.low_rank_adapter'
    const dir = openDelta('low_rank_adapter', config, {
      [`${path}.down_sampler.W_left`]: [hidden, 1],
      [`${path}.down_sampler.W_right`]: [1, 8],
      [`${path}.down_sampler.b`]: [8],
      [`${path}.up_sampler.W_left`]: [8, 1],
      [`${path}.up_sampler.W_right`]: [1, hidden],
      [`${path}.up_sampler.b`]: [hidden],
    })
    const read = (name: string) => floats(dir.tensors, `model.layers.1.mlp.low_rank_adapter.${name}`)
    const [left, right] = [read('down_sampler.W_left'), read('down_sampler.W_right')]
    const [found] = compile(writeOpenDelta(dir)).sites.get('layers.1.mlpOut') as readonly [Bottleneck]
    // [size, in]: what comes out first.
    assert.equal(found.down[3 * hidden + 5], Math.fround(left[5]! * right[3]!))
    assert.equal(found.up[5 * 8 + 3], Math.fround(read('up_sampler.W_left')[3]! * read('up_sampler.W_right')[5]!))
    assert.deepEqual([found.input, found.size, found.downBias], ['sublayer', 8, read('down_sampler.b')])
  })

  it('parallel adapters read one module and add to another', () => {
    const config = { bottleneck_dim: 8, non_linearity: 'gelu_new', scaled: 1 }
    const inputs = (names: readonly string[], from: string) => {
      const dir = openDelta(
        'parallel_adapter',
        { ...config, modified_modules: names },
        pair(`${from}.parallel_adapter`, 8, hidden),
      )
      const { sites } = compile(writeOpenDelta(dir))
      const [[site, [primitive]]] = [...sites] as unknown as [[string, [Bottleneck]]]
      const read = readPair(dir, `model.layers.0.${from}.parallel_adapter`)
      assert.deepEqual(primitive, { ...fields, input: primitive.input, ...read })
      return [sites.size, site, primitive.input]
    }
    assert.deepEqual(inputs(['up_proj', 'down_proj'], 'mlp.up_proj'), [2, 'layers.0.mlpOut', 'normed'])
    assert.deepEqual(inputs(['mlp', 'mlp'], 'mlp'), [2, 'layers.0.mlpOut', 'normed'])
    assert.deepEqual(inputs(['q_proj', 'o_proj'], 'self_attn.q_proj'), [2, 'layers.0.attnOut', 'normed'])
    assert.deepEqual(inputs(['q_proj', 'q_proj'], 'self_attn.q_proj'), [2, 'layers.0.q', 'site-beside'])
  })

  it('bitfit adds biases, also behind norms that have none', () => {
    const dir = openDelta(
      'bitfit',
      { modified_modules: ['mlp', 'input_layernorm'] },
      { 'mlp.up_proj.bias': [ff], 'input_layernorm.bitfit.bias': [hidden] },
    )
    const { sites } = compile(writeOpenDelta(dir))
    const values = (name: string) => floats(dir.tensors, `model.layers.0.${name}`)
    assert.deepEqual(sites.get('layers.0.up'), [{ kind: 'vector', slot: 'bias', values: values('mlp.up_proj.bias') }])
    const norm = { kind: 'vector', slot: 'shift', values: values('input_layernorm.bitfit.bias') }
    assert.deepEqual(sites.get('layers.0.preAttn'), [norm])
  })

  it('soft prompts are virtual tokens', () => {
    const config = { soft_token_num: 5, init_range: 0.5, token_init: true }
    const dir = openDelta('soft_prompt', config, { 'soft_prompt_layer.soft_embeds': [5, hidden] })
    const rows = floats(dir.tensors, 'soft_prompt_layer.soft_embeds')
    const { sites, virtualTokens } = compile(writeOpenDelta(dir))
    assert.deepEqual([sites.size, virtualTokens], [0, { kind: 'soft-prompt', numTokens: 5, rows, layerRows: null }])
  })

  it('refuses by the key', () => {
    const shapes = { 'self_attn.q_proj.lora.lora_A': [4, hidden], 'self_attn.q_proj.lora.lora_B': [hidden, 4] }
    const lora = { modified_modules: ['q_proj'], lora_r: 4, lora_alpha: 16 }
    const field = (type: string, config: Record<string, unknown>) => refused(writeOpenDelta(openDelta(type, config, shapes)))
    assert.equal(field('prefix', lora), 'delta_type')
    assert.equal(field('lora', { ...lora, lora_alpha: null }), 'lora_alpha')
    assert.equal(field('lora', { ...lora, use_dora: true }), 'use_dora')
    assert.equal(field('lora', { ...lora, modified_modules: ['x'] }), 'modified_modules')
    assert.equal(field('lora', { ...lora, modified_modules: ['[r].*q_proj'] }), 'modified_modules')
    assert.equal(field('lora', { ...lora, modified_modules: ['v_proj'] }), 'model.layers.0.self_attn.v_proj.lora.lora_A')
    assert.match(field('lora', { ...lora, exclude_modules: ['model.layers.0'] }), /^model\.layers\.0/)
    assert.equal(field('low_rank_adapter', { reduction_factor: 8, low_rank_rank: 2 }), 'low_rank_rank')
    assert.equal(field('parallel_adapter', { bottleneck_dim: 8 }), 'modified_modules')
    const crossed = { bottleneck_dim: 8, modified_modules: ['q_proj', 'down_proj'] }
    const dir = openDelta('parallel_adapter', crossed, pair('self_attn.q_proj.parallel_adapter', 8, hidden))
    assert.equal(refused(writeOpenDelta(dir)), 'modified_modules')
  })
})

describe('MoE-PEFT', () => {
  const experts = ({ tensors }: WriterDir, path: string) =>
    [0, 1, 2].map((e) => {
      const [a, b] = ['A', 'B'].map((name) => floats(tensors, `${path}.experts.${e}.lora_${name}.weight`)) as [
        Float32Array,
        Float32Array,
      ]
      return { kind: 'low-rank', rank: 4, scale: 2, a, b, biasB: null } as const
    })
  const gateOf = ({ tensors }: WriterDir, path: string, topK: number | null) =>
    ({
      kind: 'linear',
      weight: floats(tensors, `${path}.moe_gate.weight`),
      bias: null,
      temperature: 1,
      topK,
      renormalize: topK !== null,
    }) as const

  it('MOLA routes every linear to its best experts', () => {
    const dir = moePeft('mola', { top_k: 2 }, ['self_attn.q_proj', 'mlp.down_proj'])
    const expected = [0, 1].flatMap((layer) =>
      ['self_attn.q_proj', 'mlp.down_proj'].map((name) => {
        const path = `mola.layers.${layer}.${name}`
        const site = `layers.${layer}.${name === 'mlp.down_proj' ? 'down' : 'q'}`
        return [site, { kind: 'routed', experts: experts(dir, path), gate: gateOf(dir, path, 2), sublayerWeight: 1 }] as const
      }),
    )
    assert.deepEqual(compile(writePeft(dir)).sites, sitesOf(expected))
  })

  it('LORAMOE mixes all experts of the feed-forward network, and has one update elsewhere', () => {
    const dir = moePeft('loramoe', {}, ['mlp.up_proj'], ['self_attn.v_proj'])
    const { sites } = compile(writePeft(dir))
    const path = 'loramoe.layers.1.mlp.up_proj'
    const routed = { kind: 'routed', experts: experts(dir, path), gate: gateOf(dir, path, null), sublayerWeight: 1 }
    assert.deepEqual(sites.get('layers.1.up'), [routed])
    assert.deepEqual([...sites].map(([site, [primitive]]) => `${site} ${primitive!.kind}`).sort(), [
      'layers.0.up routed',
      'layers.0.v low-rank',
      'layers.1.up routed',
      'layers.1.v low-rank',
    ])
  })

  it('refuses by the key', () => {
    const field = (config: Record<string, unknown>) =>
      refused(writePeft(moePeft('mola', { top_k: 2, ...config }, ['mlp.up_proj'])))
    assert.equal(field({ top_k: 4 }), 'top_k')
    assert.equal(field({ use_dora: true }), 'use_dora')
    assert.equal(field({ routing_strategy: 'mixlora' }), 'routing_strategy')
    assert.equal(field({ num_experts: 2 }), 'mola.layers.0.mlp.up_proj.moe_gate.weight')
    for (const peft_type of ['MIXLORA', 'MMOELORAS', 'PROMPT_ROUTING', 'XLORA']) assert.equal(field({ peft_type }), 'peft_type')
  })
})
