// The reference's own arithmetic against formulas written out by hand: other backends are compared with it, so it stands alone.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { activate, erf } from '../../src/adapter/arithmetic/activate.ts'
import { softmax } from '../../src/adapter/arithmetic/dot.ts'
import { embeddingRow } from '../../src/adapter/arithmetic/embedding-row.ts'
import type { Primitive, Site } from '../../src/adapter/primitive.ts'
import { NO_PRIMITIVES, type SitePrimitives } from '../../src/adapter/site-primitives.ts'
import { softcap } from '../../src/backend/reference/attention.ts'
import { applyLinear } from '../../src/backend/reference/linear.ts'
import { applyNorm } from '../../src/backend/reference/norm.ts'
import { createReferenceBackend } from '../../src/backend/reference/reference-backend.ts'
import type { SiteWeights } from '../../src/backend/reference/site-weights.ts'
import { LorikeetError } from '../../src/errors.ts'
import { openModel } from '../../src/model/open-model.ts'
import { goldenModelDir } from '../support/golden.ts'
import { PlanDriver } from '../support/plan-driver.ts'
import { adapterOf } from '../support/random-adapter.ts'

const f32 = (...values: number[]) => Float32Array.from(values)

/** W = [[1, 2, 3], [4, 5, 6]], b = [10, 20]. */
const linear: SiteWeights = {
  site: 'layers.0.q',
  kind: 'linear',
  numOut: 2,
  numIn: 3,
  weight: f32(1, 2, 3, 4, 5, 6),
  bias: f32(10, 20),
}

function runLinear(adapter: Partial<SitePrimitives>, base = linear): readonly number[] {
  const [out] = applyLinear(base, { ...NO_PRIMITIVES, ...adapter }, [f32(1, 1, 2)])
  return [...out!]
}

test('base linear: W x + b', () => {
  assert.deepEqual(runLinear({}), [9 + 10, 21 + 20])
})

test('every slot in its order, low rank reading the input before its scale', () => {
  const found = runLinear({
    vectors: new Map([
      ['input-scale', f32(2, 1, 1)],
      ['factor', f32(3, 1)],
      ['bias', f32(100, 200)],
      ['output-scale', f32(0.5, 2)],
      ['shift', f32(1, -1)],
    ]),
    lowRanks: [{ kind: 'low-rank', rank: 1, a: f32(1, 0, 1), b: f32(1, 2), scale: 10, biasB: f32(0, 1) }],
  })
  // u = (2, 1, 2); W u = (10, 25); factor (30, 25); bias (130, 225); low rank A x = 3, so 10 · (3, 6 + 1).
  assert.deepEqual(found, [(130 + 30) * 0.5 + 1, (225 + 70) * 2 - 1])
})

test('several low ranks add up', () => {
  const lowRank = { kind: 'low-rank', rank: 2, a: f32(1, 0, 0, 0, 0, 1), b: f32(1, 1, 0, 1), scale: 1, biasB: null } as const
  // A x = (1, 2); B (A x) = (3, 2), twice.
  assert.deepEqual(runLinear({ lowRanks: [lowRank, lowRank] }), [19 + 6, 41 + 4])
})

test('replace swaps the weight and keeps the bias', () => {
  assert.deepEqual(runLinear({ replace: { kind: 'replace', shape: [2, 3], weight: f32(0, 0, 1, 1, 0, 0) } }), [12, 21])
})

test('rows swap single rows of the head', () => {
  const rows = { kind: 'rows', rowIds: Int32Array.of(1), rows: f32(1, 1, 1) } as const
  assert.deepEqual(runLinear({ rows }, { ...linear, kind: 'head', bias: null }), [9, 4])
})

test('embedding: base row, own row, low rank through A’s column', () => {
  const table: SiteWeights = { ...linear, site: 'embed', kind: 'embedding', bias: null }
  const lowRank = { kind: 'low-rank', rank: 1, a: f32(5, 7), b: f32(1, 0, -1), scale: 2, biasB: null } as const
  const rows = { kind: 'rows', rowIds: Int32Array.of(0), rows: f32(-1, -2, -3) } as const
  const embed = (adapter: Partial<SitePrimitives>, id: number) => {
    const out = new Float32Array(3)
    embeddingRow(table.weight, { ...NO_PRIMITIVES, ...adapter }, id, out)
    return [...out]
  }
  assert.deepEqual(embed({}, 1), [4, 5, 6])
  assert.deepEqual(embed({ rows }, 0), [-1, -2, -3])
  assert.deepEqual(embed({ rows }, 1), [4, 5, 6])
  assert.deepEqual(embed({ lowRanks: [lowRank] }, 1), [4 + 14, 5, 6 - 14])
  assert.deepEqual(embed({ rows, lowRanks: [lowRank] }, 0), [-1 + 10, -2, -3 - 10])
})

test('norms: rms with an offset, layer with a bias, groups, an adapter’s own weight and bias', () => {
  const close = (found: Float32Array, expected: readonly number[]) =>
    found.forEach((value, i) => {
      assert.ok(Math.abs(value - expected[i]!) < 1e-5, `${found} and ${expected}`)
    })
  const base: SiteWeights = { site: 'finalNorm', kind: 'norm', numOut: 2, numIn: 1, weight: f32(1, 2), bias: null }
  const rms = f32(3, 4, 0, 2)
  applyNorm({ kind: 'rms', eps: 0, weightOffset: 1 }, base, null, rms)
  const [first, second] = [Math.sqrt(12.5), Math.sqrt(2)]
  close(rms, [(3 / first) * 2, (4 / first) * 3, 0, (2 / second) * 3])
  const layer = f32(1, 5)
  applyNorm({ kind: 'layer', eps: 0, weightOffset: 0 }, { ...base, bias: f32(10, 20) }, null, layer)
  close(layer, [-1 + 10, 2 + 20])
  const own = f32(1, 5)
  const replace = { kind: 'replace', shape: [2], weight: f32(3, 3) } as const
  applyNorm(
    { kind: 'layer', eps: 0, weightOffset: 0 },
    base,
    { ...NO_PRIMITIVES, replace, vectors: new Map([['bias', f32(1, 1)]]) },
    own,
  )
  close(own, [-3 + 1, 3 + 1])
})

test('activations and soft caps at known points', () => {
  const close = (found: number, expected: number) => assert.ok(Math.abs(found - expected) < 1e-9, `${found} and ${expected}`)
  // Values of erf: Abramowitz and Stegun, table 7.1.
  for (const [x, value] of [
    [0, 0],
    [0.5, 0.5204998778],
    [1, 0.8427007929],
    [-2, -0.995322265],
    [3.5, 0.999999257],
    [7, 1],
  ] as const) {
    close(erf(x), value)
  }
  close(activate('silu', 1), 1 / (1 + Math.exp(-1)))
  close(activate('gelu', 1), 0.5 * (1 + erf(Math.SQRT1_2)))
  assert.ok(Math.abs(activate('gelu-tanh', 1) - activate('gelu', 1)) < 1e-3)
  close(activate('relu', -1), 0)
  close(softcap(1e9, 30), 30)
  close(softcap(5, null), 5)
  assert.deepEqual(softmax([1000, 1000]), [0.5, 0.5])
})

test('an adapter’s change of the embedding is multiplied by the embedding scale with it', async () => {
  const model = openModel(goldenModelDir('gemma2'))
  const run = async (site: Site, primitive: Primitive) => {
    const backend = createReferenceBackend({ model, blockSize: 4, kvCache: { numBlocks: 8 }, adapterBytes: 1 << 24 })
    const driver = new PlanDriver(backend)
    const slot = backend.loadAdapter(adapterOf(site, new Map([[site, [primitive]]])))
    const [[logits] = []] = await driver.step([{ sequence: driver.add([7, 8], { adapterSlot: slot! }) }])
    return logits!
  }
  const { hiddenSize, vocabSize } = model.spec
  const b = Float32Array.from({ length: hiddenSize }, (_, i) => Math.sin(i))
  const a = new Float32Array(vocabSize).fill(0.5)
  const table = model.read('embed').map((value, i) => value + 0.5 * b[i % hiddenSize]!)
  const lowRank = await run('embed', { kind: 'low-rank', rank: 1, a, b, scale: 1, biasB: null })
  const replaced = await run('embed', { kind: 'replace', weight: table, shape: [vocabSize, hiddenSize] })
  assert.ok(lowRank.every((value, i) => Math.abs(value - replaced[i]!) < 1e-4))
})

test('plans and adapters that contradict themselves are caught', async () => {
  const model = openModel(goldenModelDir('llama'))
  const backend = createReferenceBackend({ model, blockSize: 4, kvCache: { numBlocks: 8 }, adapterBytes: 1 << 24 })
  const driver = new PlanDriver(backend)
  const internal = (error: unknown) => error instanceof LorikeetError && error.code === 'INTERNAL'
  await assert.rejects(driver.step([{ sequence: driver.add([320]) }]), internal)
  await assert.rejects(driver.step([{ sequence: driver.add([1], { adapterSlot: 0 }) }]), internal)
  const vector: Primitive = { kind: 'vector', slot: 'shift', values: new Float32Array(64) }
  const twice = adapterOf('twice', new Map<Site, Primitive[]>([['layers.0.q', [vector, vector]]]))
  assert.throws(() => backend.loadAdapter(twice), /two vectors fill the slot shift/)
  const once = adapterOf('once', new Map<Site, Primitive[]>([['layers.0.q', [vector]]]))
  backend.loadAdapter(once)
  assert.throws(() => backend.loadAdapter(once), internal)
  backend.checkIntegrity()
  await backend.dispose()
  await assert.rejects(driver.step([{ sequence: driver.add([1]) }]), internal)
})
