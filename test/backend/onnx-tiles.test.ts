// Mixed adapters against the reference, in every way their weights can lie in the arena.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import type { CompiledAdapter } from '../../src/adapter/primitive.ts'
import { createOnnxBackend, type OnnxBackend } from '../../src/backend/onnx/onnx-backend.ts'
import { createReferenceBackend, type ReferenceBackend } from '../../src/backend/reference/reference-backend.ts'
import { adapterSlot } from '../../src/core/ids.ts'
import { openModel } from '../../src/model/open-model.ts'
import { goldenModelDir, maxAbsDiff } from '../support/golden.ts'
import { PlanDriver } from '../support/plan-driver.ts'
import { randomLora } from '../support/random-adapter.ts'

const TOLERANCE = 2e-3
const SHAPE = { blockSize: 4, kvCache: { numBlocks: 96 }, adapterBytes: 64 << 20 }
const model = openModel(goldenModelDir('llama'))

describe('adapters of a step in the arena', () => {
  let onnx: OnnxBackend
  let reference: ReferenceBackend
  before(async () => {
    onnx = await createOnnxBackend({ model, ...SHAPE, numThreads: 1 })
    reference = createReferenceBackend({ model, ...SHAPE })
  })
  after(async () => {
    await onnx.dispose()
    await reference.dispose()
  })

  const equal = (count: number) => Array.from({ length: count }, (_, i) => randomLora(model, 100 + i, 8))

  test('equal ranks side by side', () => compare(equal(4), [0, 1, 2, 3], 'decode'))
  test('a base row among them', () => compare(equal(4), [-1, 0, 1, 2, 3], 'decode'))
  test('an adapter between them that has no row', () => compare(equal(3), [0, 2], 'decode'))
  test('rows that share an adapter', () => compare(equal(3), [-1, 0, 1, 1, 2], 'decode'))
  test('far apart', () => compare(equal(8), [0, 7], 'decode'))
  test('one adapter, one row', () => compare(equal(1), [0], 'decode'))
  test('many rows of one adapter', () => compare(equal(2), [0, 0, 0, 0, 0, 0, 1], 'decode'))
  test('prompt chunks of equal ranks', () => compare(equal(3), [-1, 0, 1, 2], 'chunk'))
  test('a prompt chunk beside decode rows', () => compare(equal(3), [-1, 0, 1, 2], 'mixed'))
  test('ranks 2, 16 and 40', () =>
    compare(
      [2, 16, 40].map((rank) => randomLora(model, rank, rank)),
      [-1, 0, 1, 2],
      'decode',
    ))
  test('only q and v', () =>
    compare(
      [1, 2].map((seed) => randomLora(model, seed, 8, ['q', 'v'])),
      [-1, 0, 1],
      'decode',
    ))
  test('other linears in each', () =>
    compare([randomLora(model, 1, 8, ['q']), randomLora(model, 2, 8, ['down', 'k'])], [-1, 0, 1], 'mixed'))

  test('pages of unloaded adapters are taken again', async () => {
    const [a, b, c] = equal(3).map((adapter) => onnx.loadAdapter(adapter)!)
    onnx.unloadAdapter(b!)
    onnx.checkIntegrity()
    const d = onnx.loadAdapter(randomLora(model, 50, 8))!
    onnx.checkIntegrity()
    for (const slot of [a, c, d]) onnx.unloadAdapter(slot!)
    onnx.checkIntegrity()
  })

  test('a copy goes on by shares and can be left off', () => {
    const [a, b] = equal(2).map((adapter) => onnx.loadAdapter(adapter)!)
    assert.equal(onnx.continueLoad(a!, 1), false)
    assert.equal(onnx.continueLoad(a!, 0), false)
    onnx.checkIntegrity()
    let numTurns = 0
    while (!onnx.continueLoad(a!, 4096)) numTurns++
    assert.ok(numTurns > 3, `${numTurns} turns of 4 KiB`)
    assert.equal(onnx.continueLoad(b!, 1), false)
    onnx.unloadAdapter(b!)
    onnx.checkIntegrity()
    onnx.unloadAdapter(a!)
    onnx.checkIntegrity()
  })

  /** A prompt for each entry of `users` (index of an adapter, -1 = base), then one step of the kind. */
  async function compare(adapters: readonly CompiledAdapter[], users: readonly number[], kind: 'decode' | 'chunk' | 'mixed') {
    const found = await run(onnx, adapters, users, kind)
    onnx.checkIntegrity()
    const expected = await run(reference, adapters, users, kind)
    expected.forEach((logits, user) => {
      const difference = maxAbsDiff(logits, found[user]!)
      assert.ok(difference <= TOLERANCE, `row of ${users[user]}: logits differ by ${difference}`)
    })
  }
})

async function run(
  backend: OnnxBackend | ReferenceBackend,
  adapters: readonly CompiledAdapter[],
  users: readonly number[],
  kind: 'decode' | 'chunk' | 'mixed',
): Promise<readonly Float32Array[]> {
  const slots = adapters.map((adapter) => backend.loadAdapter(adapter)!)
  const driver = new PlanDriver(backend)
  const sequences = users.map((user, i) => driver.add([3 + i, 40 + i, 7, 21, 9], { adapterSlot: slots[user] ?? -1 }))
  const firstTokens = (i: number) => (kind === 'decode' || (kind === 'mixed' && i % 2 === 1) ? 4 : 1)
  await driver.step(sequences.map((sequence, i) => ({ sequence, numTokens: firstTokens(i) })))
  const rows = await driver.step(sequences.map((sequence) => ({ sequence })))
  for (const slot of slots) backend.unloadAdapter(adapterSlot(slot))
  return rows.map((of) => of[0]!)
}
