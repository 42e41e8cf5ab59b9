// Every primitive on onnx against the reference, in one mixed batch, prompt and decode; and what the ops cost in memory.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { CompiledAdapter } from '../../src/adapter/primitive.ts'
import type { Backend } from '../../src/backend/backend.ts'
import { createOnnxBackend } from '../../src/backend/onnx/onnx-backend.ts'
import { createReferenceBackend } from '../../src/backend/reference/reference-backend.ts'
import { adapterSlot } from '../../src/core/ids.ts'
import { openModel } from '../../src/model/open-model.ts'
import { goldenModelDir, maxAbsDiff } from '../support/golden.ts'
import { type Generated, PlanDriver } from '../support/plan-driver.ts'
import { everyKind } from '../support/random-primitives.ts'

const TOLERANCE = 1e-4
const SHAPE = { blockSize: 4, kvCache: { numBlocks: 400 }, adapterBytes: 64 << 20 }
/** With the base row and another of the first kind, below the plan driver's limit. */
const BATCH = 17

for (const name of ['llama', 'gemma2']) {
  const model = openModel(goldenModelDir(name))
  describe(`onnx computes what the reference does on ${name}`, () => {
    const kinds = everyKind(model)
    for (let first = 0; first < kinds.length; first += BATCH) {
      const batch = kinds.slice(first, first + BATCH)
      test(batch.map((adapter) => adapter.name).join(', '), async () => {
        const onnx = await createOnnxBackend({ model, ...SHAPE, numThreads: 1 })
        const reference = createReferenceBackend({ model, ...SHAPE })
        const expected = await mixed(reference, batch)
        const found = await mixed(onnx, batch)
        onnx.checkIntegrity()
        for (const [i, { logits }] of found.entries()) {
          for (const [token, row] of logits.entries()) {
            const difference = maxAbsDiff(row, expected[i]!.logits[token]!)
            const who = batch[i - 1]?.name ?? 'base'
            assert.ok(difference <= TOLERANCE, `${who}, token ${token}: logits differ by ${difference}`)
          }
        }
        await onnx.dispose()
        await reference.dispose()
      })
    }
  })
}

test('a step in a graph that has more ops than it needs', async () => {
  const model = openModel(goldenModelDir('llama'))
  const onnx = await createOnnxBackend({ model, ...SHAPE, numThreads: 1 })
  const reference = createReferenceBackend({ model, ...SHAPE })
  const kinds = everyKind(model)
  const two = kinds.filter((adapter) => adapter.name === 'kron' || adapter.name === 'dense-rows')
  const expected = await mixed(reference, two)
  // All together first: the graph for all of them then serves two of them.
  await mixed(onnx, kinds.slice(0, 14))
  const found = await mixed(onnx, two)
  for (const [i, { logits }] of found.entries()) assert.ok(maxAbsDiff(logits[0]!, expected[i]!.logits[0]!) <= TOLERANCE)
  await onnx.dispose()
})

test('tables of ops count against the budget, and copies of several adapters go with them', async () => {
  const model = openModel(goldenModelDir('llama'))
  const [kron, rotate] = everyKind(model).filter(({ name }) => name === 'kron' || name === 'rotate')
  const onnx = await createOnnxBackend({ model, ...SHAPE, numThreads: 1 })
  for (const adapter of [kron!, rotate!]) {
    assert.ok(onnx.adapterBytes(adapter) >= adapter.numBytes, `${adapter.name} takes what its arrays take`)
  }
  const tight = await createOnnxBackend({ model, ...SHAPE, adapterBytes: onnx.adapterBytes(kron!) + 1, numThreads: 1 })
  assert.notEqual(tight.loadAdapter(kron!), null)
  assert.equal(tight.loadAdapter(rotate!), null)
  tight.checkIntegrity()
  const slot = onnx.loadAdapter(rotate!)!
  assert.equal(onnx.continueLoad(slot, 1), false)
  let numTurns = 0
  while (!onnx.continueLoad(slot, 1024)) numTurns++
  assert.ok(numTurns > 3, `${numTurns} turns`)
  await tight.dispose()
  await onnx.dispose()
})

/** The base model and every adapter on one prompt, in one batch; the last prompt is longer than the windows of gemma2. */
async function mixed(backend: Backend, adapters: readonly CompiledAdapter[]): Promise<readonly Generated[]> {
  const slots = adapters.map((adapter) => backend.loadAdapter(adapter)!)
  const driver = new PlanDriver(backend)
  const prompt = Array.from({ length: 27 }, (_, i) => 3 + ((i * 37) % 300))
  const sequences = [driver.add(prompt)]
  for (const [i, { virtualTokens }] of adapters.entries()) {
    sequences.push(driver.add(prompt.slice(0, 9 + i), { adapterSlot: slots[i]!, virtualTokens }))
  }
  const generated = await driver.generate(sequences, 3)
  for (const slot of slots) backend.unloadAdapter(adapterSlot(slot))
  return generated
}
