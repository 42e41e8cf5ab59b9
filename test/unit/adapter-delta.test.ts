import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { compileAdapter } from '../../src/adapter/compile.ts'
import { inspectAdapter } from '../../src/adapter/inspect.ts'
import type { CompiledAdapter } from '../../src/adapter/primitive.ts'
import { createReferenceBackend } from '../../src/backend/reference/reference-backend.ts'
import { runDelta } from '../../src/cli/delta.ts'
import { adapterId } from '../../src/core/ids.ts'
import { LorikeetError } from '../../src/errors.ts'
import type { ModelSource } from '../../src/model/model-source.ts'
import { openModel } from '../../src/model/open-model.ts'
import { openSafetensors, readTensorF32 } from '../../src/model/safetensors.ts'
import { goldenModelDir, maxAbsDiff } from '../support/golden.ts'
import { type Tensors, writeChangedModel } from '../support/model-dir.ts'
import { PlanDriver } from '../support/plan-driver.ts'
import { f32, tempDir, writeSafetensors } from '../support/safetensors-file.ts'

const PROMPT = [5, 300, 17, 42, 9, 128, 77, 201]

/** The sums of base and difference are rounded in another order than the tuned weight's. */
const TOLERANCE = 1e-4

/** A tuned copy: of the tensors in turn none, three entries, two rows, or everything differs. */
function tune(name: string, turns = 4): string {
  const { tensors } = openSafetensors(join(goldenModelDir(name), 'model.safetensors'))
  const tuned: Tensors = {}
  for (const [i, [key, entry]] of [...tensors].entries()) {
    const values = readTensorF32(entry)
    const width = entry.shape.at(-1)!
    const touch = [() => [], () => [0, 5, values.length - 1], () => range(width, 3 * width), () => range(0, values.length)]
    for (const at of touch[i % turns]!())
      values[at % values.length] = values[at % values.length]! + 0.02 * Math.sin(at + i) + 0.01
    tuned[key] = f32(entry.shape, [...values])
  }
  return writeChangedModel(name, { tensors: () => tuned })
}

function range(start: number, end: number): number[] {
  return Array.from({ length: end - start }, (_, i) => start + i)
}

async function logitsOf(model: ModelSource, adapter: CompiledAdapter | null): Promise<Float32Array> {
  const backend = createReferenceBackend({ model, blockSize: 4, kvCache: { numBlocks: 16 }, adapterBytes: 1 << 30 })
  const driver = new PlanDriver(backend)
  const options = adapter === null ? {} : { adapterSlot: backend.loadAdapter(adapter)! }
  const rows = await driver.step([{ sequence: driver.add(PROMPT, options) }])
  await backend.dispose()
  return rows[0]![0]!
}

function makeDelta(base: string, tuned: string, ...options: string[]): string {
  const out = join(tempDir(), 'delta')
  runDelta(['--base', base, '--tuned', tuned, '--out', out, ...options])
  return out
}

function refusal(dir: string, model: ModelSource): LorikeetError {
  try {
    compileAdapter(dir, model, adapterId(1), 'test')
  } catch (thrown) {
    if (thrown instanceof LorikeetError) return thrown
    throw thrown
  }
  assert.fail('the delta is refused')
}

describe('a delta adapter', () => {
  // Biases (qwen2), fused modules (phi3), transposed weights, layer norms and learned positions (gpt2), a tied head (llama3rope).
  for (const name of ['llama', 'qwen2', 'phi3', 'gpt2', 'llama3rope', 'gemma2']) {
    it(`turns ${name} into the checkpoint it was made from`, async () => {
      const base = openModel(goldenModelDir(name))
      const tunedDir = tune(name)
      const { adapter } = compileAdapter(makeDelta(base.path, tunedDir), base, adapterId(1), 'test')
      const [expected, found, untouched] = await Promise.all([
        logitsOf(openModel(tunedDir), null),
        logitsOf(base, adapter),
        logitsOf(base, null),
      ])
      assert.ok(maxAbsDiff(found, expected) <= TOLERANCE, `logits differ by ${maxAbsDiff(found, expected)}`)
      assert.ok(maxAbsDiff(untouched, expected) > 100 * TOLERANCE, 'the tuned model is another one')
    })
  }

  it('stores each parameter in the smallest form and equal ones not at all', () => {
    const { tensors } = openSafetensors(join(makeDelta(goldenModelDir('llama'), tune('llama')), 'delta.safetensors'))
    const forms = new Set([...tensors.keys()].map((key) => key.split('.').at(-1)))
    assert.deepEqual([...forms].sort(), ['delta', 'indices', 'rows', 'values'])
    const { numTensors } = count(makeDelta(goldenModelDir('llama'), goldenModelDir('llama')))
    assert.equal(numTensors, 0)
  })

  it('keeps the largest differences of linears', () => {
    const base = goldenModelDir('llama')
    const dir = makeDelta(base, tune('llama'), '--top-k-percent', '2', '--kind', 'LT-SFT')
    const kept = count(dir)
    const { tensors } = openSafetensors(join(base, 'model.safetensors'))
    const linears = [...tensors.values()].filter(({ name }) => name.includes('proj') || name.startsWith('lm_head'))
    const most = linears.reduce((sum, { shape }) => sum + shape[0]! * shape[1]!, 0) * 0.02
    assert.ok(kept.numLinear <= most && kept.numLinear > 0.9 * most, `${kept.numLinear} of at most ${most}`)
    assert.equal(inspectAdapter(dir, openModel(base)).kind, 'LT-SFT')
  })

  it('is refused by the name of what is wrong', () => {
    const model = openModel(goldenModelDir('llama'))
    const write = (header: object, tensors: Tensors): LorikeetError => {
      const dir = join(tempDir(), 'delta')
      mkdirSync(dir)
      writeFileSync(join(dir, 'lorikeet_delta.json'), JSON.stringify(header))
      writeSafetensors(join(dir, 'delta.safetensors'), tensors)
      return refusal(dir, model)
    }
    const q = 'model.layers.0.self_attn.q_proj'
    assert.equal(write({ version: 2 }, { [`${q}.bias.delta`]: f32([64], range(0, 64)) }).field, 'version')
    assert.equal(write({ version: 1, scale: 2 }, { [`${q}.bias.delta`]: f32([64], range(0, 64)) }).field, 'scale')
    assert.equal(write({ version: 1 }, { 'model.nothing.weight.delta': f32([1], [1]) }).field, 'model.nothing.weight.delta')
    assert.equal(write({ version: 1 }, { [`${q}.weight.delta`]: f32([2, 2], [1, 2, 3, 4]) }).field, `${q}.weight.delta`)
    const indices = { dtype: 'I32', shape: [2], data: new Uint8Array(Int32Array.of(7, 7).buffer) }
    const values = f32([2], [1, 2])
    assert.equal(
      write({ version: 1 }, { [`${q}.weight.indices`]: indices, [`${q}.weight.values`]: values }).field,
      `${q}.weight.indices`,
    )
  })

  it('is not made of checkpoints that do not fit each other', () => {
    const fails = (tuned: string) => {
      assert.throws(() => makeDelta(goldenModelDir('llama'), tuned), { code: 'DELTA_IMPOSSIBLE' })
    }
    fails(goldenModelDir('qwen2'))
    fails(goldenModelDir('llama3rope'))
    const usage = (args: readonly string[]) => assert.throws(() => runDelta(args), { code: 'CONFIG_INVALID' })
    usage([])
    usage(['--base', 'x', '--tuned', 'y', '--out', 'z', '--top-k-percent', '0'])
    usage(['--base', 'x', '--nonsense'])
  })
})

function count(dir: string): { numTensors: number; numLinear: number } {
  const header = JSON.parse(readFileSync(join(dir, 'lorikeet_delta.json'), 'utf8'))
  assert.equal(header.version, 1)
  const { tensors } = openSafetensors(join(dir, 'delta.safetensors'))
  const linear = [...tensors.values()].filter(({ name }) => /(proj|lm_head)\.weight\.(values|delta)$/.test(name))
  return { numTensors: tensors.size, numLinear: linear.reduce((sum, entry) => sum + nonZero(readTensorF32(entry)), 0) }
}

function nonZero(values: Float32Array): number {
  return values.reduce((sum, value) => sum + (value === 0 ? 0 : 1), 0)
}
