// Checkpoints of other writers than HF PEFT and AdapterHub, in their own layout: what they compile to, against their formulas, and
// what is refused. That a backend computes the primitives is shown in test/backend.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { isInScope } from '../../src/adapter/arithmetic/stream-edit.ts'
import { compileAdapter } from '../../src/adapter/compile.ts'
import type { Bottleneck, CompiledAdapter, StreamEdit } from '../../src/adapter/primitive.ts'
import { createReferenceBackend } from '../../src/backend/reference/reference-backend.ts'
import { adapterId } from '../../src/core/ids.ts'
import type { ModelSource } from '../../src/model/model-source.ts'
import { openModel } from '../../src/model/open-model.ts'
import { compileChanged } from '../support/adapter-dir.ts'
import { goldenModelDir, maxAbsDiff } from '../support/golden.ts'
import { readTensors, writeChangedModel } from '../support/model-dir.ts'
import { PlanDriver } from '../support/plan-driver.ts'
import { f32 } from '../support/safetensors-file.ts'
import { type TorchDict, TorchSize, type TorchTensor, tensor } from '../support/torch-file.ts'
import { compile, PLAIN, refused, sitesOf } from '../support/writer-compile.ts'
import {
  dept,
  floats,
  llmAdapters,
  type ReftOptions,
  reftTensors,
  SHAPE,
  sftDiff,
  type WriterDir,
  writePeft,
  writeReft,
  writeSft,
} from '../support/writer-dirs.ts'

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

async function logitsOf(model: ModelSource, adapter: CompiledAdapter | null): Promise<Float32Array> {
  const backend = createReferenceBackend({ model, blockSize: 4, kvCache: { numBlocks: 16 }, adapterBytes: 1 << 30 })
  const driver = new PlanDriver(backend)
  const options = adapter === null ? {} : { adapterSlot: backend.loadAdapter(adapter)!, virtualTokens: adapter.virtualTokens }
  const rows = await driver.step([{ sequence: driver.add([5, 300, 17, 42, 9, 128], options) }])
  await backend.dispose()
  return rows[0]![0]!
}

describe('composable-sft', () => {
  /** The same changes as a sparse fine-tuning and in the checkpoint itself. */
  const changed = (name: string, diffs: readonly string[], absolutes: readonly string[]) => {
    const content = { diffs: {} as Record<string, TorchDict>, abs: {} as Record<string, TorchTensor> }
    const tensors = readTensors(name)
    for (const [i, key] of [...diffs, ...absolutes].entries()) {
      const { shape, data } = tensors[key]!
      const values = new Float32Array(new Uint8Array(data).buffer)
      if (i < diffs.length) {
        const entries = [3, values.length - 1, 17].map((at, k) => ({ at, value: 0.3 - 0.4 * k }))
        const width = shape.at(-1)!
        const coordinates = (at: number) => (shape.length === 1 ? [at] : [Math.floor(at / width), at % width])
        content.diffs[key] = sftDiff(
          shape,
          entries.map(({ at, value }) => ({ at: coordinates(at), value })),
        )
        for (const { at, value } of entries) values[at] = values[at]! + value
      } else {
        values.forEach((value, at) => {
          values[at] = value + 0.05 * Math.sin(at)
        })
        content.abs[key] = { shape, values: [...values] }
      }
      tensors[key] = f32(shape, [...values])
    }
    return { content, tuned: openModel(writeChangedModel(name, { tensors: () => tensors })) }
  }

  for (const [name, diffs, absolutes] of [
    ['llama', ['model.layers.0.self_attn.k_proj.weight', 'model.norm.weight', 'model.embed_tokens.weight'], ['lm_head.weight']],
    [
      'qwen2',
      ['model.layers.1.self_attn.q_proj.bias', 'model.layers.0.mlp.down_proj.weight'],
      ['model.layers.0.self_attn.k_proj.bias'],
    ],
    ['gpt2', ['transformer.h.0.attn.c_attn.weight', 'transformer.h.1.mlp.c_fc.bias'], ['transformer.h.1.mlp.c_proj.weight']],
  ] as const) {
    it(`turns ${name} into the checkpoint with these changes`, async () => {
      const { content, tuned } = changed(name, diffs, absolutes)
      const base = openModel(goldenModelDir(name))
      const { adapter } = compileAdapter(writeSft(content), base, adapterId(1), 'test')
      const [expected, found, untouched] = await Promise.all([
        logitsOf(tuned, null),
        logitsOf(base, adapter),
        logitsOf(base, null),
      ])
      assert.ok(maxAbsDiff(expected, untouched) > 0.01)
      assert.ok(maxAbsDiff(expected, found) < 1e-4, `${maxAbsDiff(expected, found)}`)
    })
  }

  it('refuses by the parameter', () => {
    const key = 'model.layers.0.self_attn.k_proj.weight'
    const entry = { at: [0, 1], value: 1 }
    const field = (content: TorchDict) => refused(writeSft(content))
    assert.equal(field({ diffs: { 'encoder.weight': sftDiff([2, 2], [entry]) } }), 'encoder.weight')
    assert.equal(field({ diffs: { [key]: sftDiff([SHAPE.hidden, SHAPE.kv], [entry]) } }), key)
    assert.equal(field({ diffs: { [key]: sftDiff([SHAPE.kv, SHAPE.hidden], [entry, entry]) } }), key)
    assert.equal(field({ diffs: { [key]: { size: new TorchSize([SHAPE.kv, SHAPE.hidden]) } } }), key)
    assert.equal(
      field({ diffs: { 'model.layers.0.self_attn.k_proj.bias': sftDiff([SHAPE.kv], []) } }),
      key.replace('weight', 'bias'),
    )
    assert.equal(field({ abs: { [key]: tensor([2], [1, 1]) } }), key)
    assert.equal(field({ diffs: {}, abs: {} }), 'pytorch_diff.bin')
    assert.equal(field({ diffs: {}, extra: {} }), 'extra')
  })
})

describe('pyreft', () => {
  const edits = (options: ReftOptions) => compile(writeReft(options)).sites as ReadonlyMap<string, readonly StreamEdit[]>
  const LAYERS = { type: 'Loreft', layers: [0, 1] }

  it('edits the stream behind each layer with its own weights', () => {
    const sites = edits({ ...LAYERS, config: { positions: 'f2+l3' } })
    const scope = { numFirst: 2, numLast: 3, isCappedAtHalf: true }
    for (const layer of [0, 1]) {
      const saved = reftTensors('Loreft', layer)
      const [edit, second] = sites.get(`layers.${layer}.blockOut`)!
      assert.equal(second, undefined)
      assert.deepEqual(edit!.source, floats(saved, 'weight'))
      assert.deepEqual(edit!.sourceBias, floats(saved, 'bias'))
      const rotate = floats(saved, 'rotate_layer')
      assert.deepEqual(
        edit!.rotation,
        rotate.map((_, i) => rotate[(i % SHAPE.hidden) * 4 + Math.floor(i / SHAPE.hidden)]!),
      )
      assert.deepEqual([edit!.scope, edit!.subtractsProjection, edit!.activation], [scope, true, 'identity'])
    }
  })

  it('gives two interventions of a layer one end each', () => {
    const sites = edits({ type: 'Loreft', layers: [1, 1], config: { positions: 'f2+l3' } })
    const [first, last] = sites.get('layers.1.blockOut')!
    assert.deepEqual([first!.scope.numFirst, first!.scope.numLast], [2, 0])
    assert.deepEqual([last!.scope.numFirst, last!.scope.numLast], [0, 3])
    assert.deepEqual(first!.source, floats(reftTensors('Loreft', 0), 'weight'))
    assert.deepEqual(last!.source, floats(reftTensors('Loreft', 1), 'weight'))
  })

  it('finds files by the names of earlier versions and of module paths', () => {
    const config = { positions: 'l1' }
    const plain = edits({ ...LAYERS, config })
    const fileName = (name: string) =>
      name.replace('_comp_block_output_unit_pos_nunit_', '.repr.block_output.unit.pos.nunit.').replace('layer_', 'layer.')
    assert.deepEqual(edits({ ...LAYERS, config, fileName }), plain)
    const component = (layer: number) => `base_model.model.model.layers[${layer}].output`
    assert.deepEqual(edits({ ...LAYERS, config, component }), plain)
  })

  it('knows what each class leaves out', () => {
    const config = { positions: 'f1' }
    const [noreft] = edits({ type: 'Noreft', layers: [0], config }).get('layers.0.blockOut')!
    const saved = reftTensors('Noreft', 0)
    assert.deepEqual(noreft!.rotation, floats(saved, 'proj_layer.weight'))
    const [bias, other] = [floats(saved, 'learned_source.bias'), floats(saved, 'proj_layer.bias')]
    assert.deepEqual(
      noreft!.sourceBias,
      bias.map((value, i) => value - other[i]!),
    )
    const [direft] = edits({ type: 'Direft', layers: [0], config: { ...config, act_fn: 'relu' } }).get('layers.0.blockOut')!
    assert.deepEqual(
      [direft!.subtractsProjection, direft!.activation, direft!.rotation.length],
      [false, 'relu', 4 * SHAPE.hidden],
    )
    const [consreft] = edits({ type: 'Consreft', layers: [0], config }).get('layers.0.blockOut')!
    assert.ok(consreft!.source.every((value) => value === 0))
    assert.deepEqual(consreft!.sourceBias, floats(reftTensors('Consreft', 0), 'learned_source'))
  })

  it('edits at most half of a short prompt at either end', () => {
    const scope = { numFirst: 7, numLast: 7, isCappedAtHalf: true } as const
    const edited = (length: number) => Array.from({ length }, (_, i) => isInScope(scope, i, length))
    assert.deepEqual(edited(5), [true, true, false, true, true])
    assert.deepEqual(edited(1), [false])
    assert.equal(edited(20).filter(Boolean).length, 14)
  })

  it('refuses by the key', () => {
    const field = (options: Partial<ReftOptions>) => refused(writeReft({ ...LAYERS, ...options }))
    assert.equal(field({}), 'positions')
    assert.equal(field({ config: { positions: 'all' } }), 'positions')
    assert.equal(field({ config: { positions: 'f3' }, layers: [0, 0] }), 'positions')
    assert.equal(field({ config: { positions: 'f3', mode: 'serial' } }), 'mode')
    assert.equal(
      field({ config: { positions: 'f3', intervention_types: ["<class 'x.SubspaceIntervention'>"] } }),
      'intervention_types',
    )
    assert.equal(field({ config: { positions: 'f3', act_fn: 'softplus' } }), 'act_fn')
    assert.equal(field({ config: { positions: 'f3', scale: 2 } }), 'scale')
    assert.equal(field({ config: { positions: 'f3' }, component: () => 'mlp_output' }), 'representations[0].component')
    assert.equal(field({ config: { positions: 'f3' }, layers: [7] }), 'representations[0].layer')
    assert.match(field({ config: { positions: 'f3' }, fileName: (name) => name.replace('#0', '#9') }), /^intkey_layer_0/)
  })
})
