// Checkpoints of other writers than HF PEFT and AdapterHub, in their own layout: what they compile to, against their formulas, and
// what is refused. That a backend computes the primitives is shown in test/backend.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { compileAdapter } from '../../src/adapter/compile.ts'
import type { Bottleneck, CompiledAdapter, Primitive, Site } from '../../src/adapter/primitive.ts'
import { adapterId } from '../../src/core/ids.ts'
import { LorikeetError } from '../../src/errors.ts'
import { compileChanged, goldenModel } from '../support/adapter-dir.ts'
import { dept, floats, llmAdapters, SHAPE, type WriterDir, writePeft } from '../support/writer-dirs.ts'

const MODEL = goldenModel('llama')

function compile(dir: string): CompiledAdapter {
  return compileAdapter(dir, MODEL, adapterId(1), 'test').adapter
}

/** Names the key or tensor at fault. */
function refused(dir: string): string {
  try {
    compile(dir)
  } catch (thrown) {
    if (thrown instanceof LorikeetError && thrown.code === 'ADAPTER_REFUSED') return String(thrown.field)
    throw thrown
  }
  assert.fail('the adapter is refused')
}

function sitesOf(entries: readonly (readonly [string, Primitive])[]): Map<Site, readonly Primitive[]> {
  return new Map(entries.map(([site, primitive]) => [site as Site, [primitive]]))
}

const PLAIN = {
  kind: 'bottleneck',
  size: 8,
  downBias: null,
  upBias: null,
  normBefore: null,
  normAfter: null,
  normsSublayerSum: false,
  gate: null,
} as const

const MLP = ['mlp.gate_proj', 'mlp.up_proj', 'mlp.down_proj']
const QKV = ['self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj']

describe('LLM-Adapters', () => {
  const expected = (dir: WriterDir, names: readonly string[], inputOf: (name: string) => Bottleneck['input'], scale: number) =>
    sitesOf(
      Array.from({ length: SHAPE.layers }, (_, layer) =>
        names.map((name) => {
          const path = `base_model.model.model.layers.${layer}.${name}.adapter`
          const [down, up] = [floats(dir.tensors, `${path}_down.weight`), floats(dir.tensors, `${path}_up.weight`)]
          const site = `layers.${layer}.${name.split('.')[1]!.replace('_proj', '')}`
          return [site, { ...PLAIN, input: inputOf(name), down, up, activation: 'tanh', scale }] as const
        }),
      ).flat(),
    )
  const serialInput = (name: string) => (name.endsWith('down_proj') ? 'site-output' : 'site-input')

  it('puts a serial bottleneck before gate and up and behind down', () => {
    const dir = llmAdapters({ scaling: 0.5 }, MLP)
    assert.deepEqual(compile(writePeft(dir)).sites, expected(dir, MLP, serialInput, 0.5))
  })

  it('puts a parallel bottleneck beside', () => {
    const dir = llmAdapters({ use_parallel_adapter: true }, [...QKV, 'mlp.down_proj'])
    const names = [...QKV, 'mlp.down_proj']
    assert.deepEqual(
      compile(writePeft(dir)).sites,
      expected(dir, names, () => 'site-beside', 1),
    )
  })

  it('AdapterP and parallel have their own default targets', () => {
    const down = llmAdapters({ use_adapterp: true, target_modules: null }, ['mlp.down_proj'])
    assert.deepEqual([...compile(writePeft(down)).sites.keys()], ['layers.0.down', 'layers.1.down'])
    const parallel = llmAdapters({ use_parallel_adapter: true, target_modules: null }, QKV)
    assert.equal(compile(writePeft(parallel)).sites.size, 6)
    assert.equal(compile(writePeft(llmAdapters({ target_modules: null }, MLP))).sites.size, 6)
  })

  it('reads a learned scale of each module', () => {
    const dir = llmAdapters({ scaling: 'learned' }, MLP)
    const [up] = compile(writePeft(dir)).sites.get('layers.1.up') as readonly [Bottleneck]
    assert.equal(up.scale, floats(dir.tensors, 'base_model.model.model.layers.1.mlp.up_proj.adapter_scaling')[0])
  })

  it('its LORA is that of PEFT 0.2, whose keys are known', () => {
    const { sites } = compileChanged('llama/lora_all').adapter
    const old = compileChanged('llama/lora_all', { config: { merge_weights: true, enable_lora: null } }).adapter.sites
    assert.deepEqual(old, sites)
    const fused = { config: { enable_lora: [true, false, true] } }
    assert.throws(() => compileChanged('llama/lora_all', fused), { code: 'ADAPTER_REFUSED', field: 'enable_lora' })
  })

  it('refuses by the key', () => {
    const field = (config: Record<string, unknown>, names = MLP) => refused(writePeft(llmAdapters(config, names)))
    assert.equal(field({}, QKV), 'target_modules')
    assert.equal(field({ scaling: 'channel' }), 'scaling')
    assert.equal(field({ non_linearity: 'mish' }), 'non_linearity')
    assert.equal(field({ bottleneck_size: 4 }), 'bottleneck_size')
    assert.equal(field({ ln_before: true }), 'ln_before')
    assert.match(field({ target_modules: ['down_proj'] }), /gate_proj\.adapter_down/)
  })
})

describe('DePT', () => {
  it('is a soft prompt and rows for the positions of the prompt', () => {
    const dir = dept()
    const { sites, virtualTokens, promptCoupling } = compile(writePeft(dir))
    const [a, b] = ['A', 'B'].map((name) => floats(dir.tensors, `prompt_encoder.lora_embedding_${name}`)) as [
      Float32Array,
      Float32Array,
    ]
    const rows = Float32Array.from({ length: 16 * SHAPE.hidden }, (_, i) => {
      const [position, column] = [Math.floor(i / SHAPE.hidden), i % SHAPE.hidden]
      let sum = 0
      for (let k = 0; k < 4; k++) sum += a[position * 4 + k]! * b[k * SHAPE.hidden + column]!
      return (8 / Math.sqrt(4)) * sum
    })
    assert.deepEqual(sites, sitesOf([['embed', { kind: 'position-rows', rows }]]))
    const prompt = floats(dir.tensors, 'prompt_embeddings')
    assert.deepEqual(virtualTokens, { kind: 'soft-prompt', numTokens: 3, rows: prompt, layerRows: null })
    assert.equal(promptCoupling, 'length')
  })

  it('refuses by the key', () => {
    const field = (config: Record<string, unknown>) => refused(writePeft(dept(config)))
    assert.equal(field({ save_lora_embeddings: false }), 'save_lora_embeddings')
    assert.equal(field({ load_lora_embedding_B: false }), 'load_lora_embedding_B')
    assert.equal(field({ r: 2 }), 'r')
    assert.equal(field({ max_length: 8 }), 'max_length')
    assert.equal(field({ task_type: 'SEQ_2_SEQ_LM' }), 'task_type')
    const { config, tensors } = dept()
    const { 'prompt_encoder.lora_embedding_B': _, ...rest } = tensors
    assert.equal(refused(writePeft({ config, tensors: rest })), 'prompt_encoder.lora_embedding_B')
  })
})
