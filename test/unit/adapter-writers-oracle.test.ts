// Checkpoints of other writers against float64 programs of their papers: what the reference backend answers for a file as saved.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { compileAdapter } from '../../src/adapter/compile.ts'
import { createReferenceBackend } from '../../src/backend/reference/reference-backend.ts'
import { adapterId } from '../../src/core/ids.ts'
import { goldenModel } from '../support/adapter-dir.ts'
import { maxAbsDiff } from '../support/golden.ts'
import { type OracleAdapter, oracleLogits } from '../support/oracle/decoder.ts'
import { add, type Matrix, matVec, type Row, scaled, transpose } from '../support/oracle/linear-algebra.ts'
import { PlanDriver } from '../support/plan-driver.ts'
import {
  dept,
  llmAdapters,
  openDelta,
  reftTensors,
  type WriterDir,
  writeOpenDelta,
  writePeft,
  writeReft,
} from '../support/writer-dirs.ts'

const MODEL = goldenModel('llama')
const PROMPT = [5, 300, 17, 42, 9, 128]

/** Between float32 and float64. */
const TOLERANCE = 1e-4

function matrix(tensors: WriterDir['tensors'], name: string): Matrix {
  const { shape, values } = tensors[name]!
  const width = shape.at(-1)!
  return Array.from({ length: values.length / width }, (_, i) => values.slice(i * width, (i + 1) * width))
}

const row = (tensors: WriterDir['tensors'], name: string): Row => tensors[name]!.values

const gelu = (x: number) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)))

async function check(dir: string, oracle: OracleAdapter): Promise<void> {
  const { adapter } = compileAdapter(dir, MODEL, adapterId(1), 'test')
  const backend = createReferenceBackend({ model: MODEL, blockSize: 4, kvCache: { numBlocks: 16 }, adapterBytes: 1 << 30 })
  const driver = new PlanDriver(backend)
  const { virtualTokens } = adapter
  const sequence = driver.add(PROMPT, { adapterSlot: backend.loadAdapter(adapter)!, virtualTokens })
  const [[found]] = (await driver.step([{ sequence }])) as [[Float32Array]]
  await backend.dispose()
  const expected = Float32Array.from(oracleLogits(PROMPT, oracle).at(-1)!)
  const base = Float32Array.from(oracleLogits(PROMPT).at(-1)!)
  assert.ok(maxAbsDiff(expected, base) > 0.01, 'the adapter changes nothing')
  assert.ok(maxAbsDiff(expected, found) < TOLERANCE, `${maxAbsDiff(expected, found)}`)
}

describe('computes the paper', () => {
  it('of LLM-Adapters, serial', async () => {
    const file = llmAdapters({ scaling: 0.5 }, ['mlp.gate_proj', 'mlp.up_proj', 'mlp.down_proj'])
    const bottleneck = (site: string, x: Row) => {
      const [, layer, role] = site.split('.')
      const path = `base_model.model.model.layers.${layer}.mlp.${role}_proj.adapter`
      const inner = matVec(matrix(file.tensors, `${path}_down.weight`), x).map(Math.tanh)
      return scaled(matVec(matrix(file.tensors, `${path}_up.weight`), inner), 0.5)
    }
    await check(writePeft(file), {
      linear: (site, x, y, base) => {
        if (/gate|up/.test(site)) return matVec(base, add(x, bottleneck(site, x)))
        return site.endsWith('down') ? add(y, bottleneck(site, y)) : y
      },
    })
  })

  it('of DePT', async () => {
    const file = dept()
    const [a, b] = ['A', 'B'].map((name) => matrix(file.tensors, `prompt_encoder.lora_embedding_${name}`)) as [Matrix, Matrix]
    await check(writePeft(file), {
      softPrompt: matrix(file.tensors, 'prompt_embeddings'),
      embed: (embedding, index) => add(embedding, scaled(matVec(transpose(b), a[index]!), 8 / Math.sqrt(4))),
    })
  })

  it('of LoReFT', async () => {
    const file = reftTensors('Loreft', 0)
    const rotation = transpose(matrix(file, 'rotate_layer'))
    const edit = (h: Row) => {
      const target = add(matVec(matrix(file, 'weight'), h), row(file, 'bias'))
      return add(h, matVec(transpose(rotation), add(target, scaled(matVec(rotation, h), -1))))
    }
    const isEdited = (index: number) => index < 1 || index >= PROMPT.length - 2
    await check(writeReft({ type: 'Loreft', layers: [0], config: { positions: 'f1+l2' } }), {
      blockInput: (layer, h, index) => (layer === 1 && isEdited(index) ? edit(h) : h),
    })
  })

  for (const [type, names] of [
    ['adapter', ['self_attn']],
    ['parallel_adapter', ['q_proj', 'o_proj']],
  ] as const) {
    it(`of OpenDelta, ${type}`, async () => {
      const module = type === 'adapter' ? 'self_attn' : 'self_attn.q_proj'
      const path = `${module}.${type}.modulelist`
      const config = { modified_modules: names, bottleneck_dim: 8, non_linearity: 'gelu_new' }
      const file = openDelta(type, config, {
        [`${path}.down_proj.weight`]: [8, 64],
        [`${path}.down_proj.bias`]: [8],
        [`${path}.up_proj.weight`]: [64, 8],
        [`${path}.up_proj.bias`]: [64],
      })
      await check(writeOpenDelta(file), {
        sublayer: (site, { f, normed }) => {
          if (!site.endsWith('attnOut')) return f
          const at = `model.layers.${site.split('.')[1]}.${path}`
          const linear = (name: string, x: Row) =>
            add(matVec(matrix(file.tensors, `${at}.${name}.weight`), x), row(file.tensors, `${at}.${name}.bias`))
          return add(f, linear('up_proj', linear('down_proj', type === 'adapter' ? f : normed).map(gelu)))
        },
      })
    })
  }
})
