// What HF transformers computes on the golden models, as tests that take the backend as a parameter.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { createReferenceBackend } from '../../src/backend/reference/reference-backend.ts'
import { openModel } from '../../src/model/open-model.ts'
import type { ContractSubject } from './contract.ts'
import { GOLDEN_MODELS, goldenModelDir, maxAbsDiff, readGoldenCases, readGoldenLogits } from './golden.ts'
import { PlanDriver } from './plan-driver.ts'
import { randomEverything } from './random-adapter.ts'

/** Between two float32 implementations whose sums run in different orders. */
const LIBRARY_TOLERANCE = 2e-3

const SHAPE = { blockSize: 4, numBlocks: 48, adapterBytes: 64 << 20 }

export function runGoldenSuite(subject: ContractSubject): void {
  describe(`${subject.name} computes what transformers computes`, () => {
    for (const name of GOLDEN_MODELS) test(name, () => checkGoldenModel(subject, name))
  })
}

/** For every backend but the reference itself. */
export function runPrimitiveSuite(subject: ContractSubject): void {
  describe(`${subject.name} computes every primitive as the reference does`, () => {
    for (const name of GOLDEN_MODELS) test(name, () => checkPrimitives(subject, name))
  })
}

async function checkGoldenModel(subject: ContractSubject, name: string): Promise<void> {
  const dir = goldenModelDir(name)
  const cases = readGoldenCases(dir)
  const expectedLogits = readGoldenLogits(dir)
  const model = openModel(dir)
  const backend = await subject.create({ model, ...SHAPE })
  const driver = new PlanDriver(backend)
  const numTokens = cases[0]!.tokens.length
  const generated = await driver.generate(
    cases.map(({ prompt }) => driver.add(prompt)),
    numTokens,
    { banned: model.eosTokenIds },
  )
  assert.deepEqual(
    generated.map(({ tokens }) => tokens),
    cases.map(({ tokens }) => tokens),
  )
  const { vocabSize } = backend
  for (let i = 0; i * vocabSize < expectedLogits.length; i++) {
    const difference = maxAbsDiff(generated[0]!.logits[i]!, expectedLogits.subarray(i * vocabSize, (i + 1) * vocabSize))
    assert.ok(difference <= LIBRARY_TOLERANCE, `token ${i}: logits differ by ${difference}`)
  }
  await backend.dispose()
}

/** One adapter with everything in it beside a base row, both against the reference. */
async function checkPrimitives(subject: ContractSubject, name: string): Promise<void> {
  const model = openModel(goldenModelDir(name))
  const { adapterBytes, blockSize, numBlocks } = SHAPE
  const reference = createReferenceBackend({ model, blockSize, kvCache: { numBlocks }, adapterBytes })
  const backend = await subject.create({ model, ...SHAPE })
  const adapter = randomEverything(model, 5)
  const prompt = [5, 300, 17, 42, 42, 9, 128, 77, 201, 6, 8]
  const [expected, found] = await Promise.all(
    [reference, backend].map(async (each) => {
      const adapterSlot = each.loadAdapter(adapter)
      assert.notEqual(adapterSlot, null)
      const driver = new PlanDriver(each)
      const chunks = [adapterSlot!, -1].map((slot) => ({
        sequence: driver.add(prompt, { adapterSlot: slot }),
        allLogits: true,
      }))
      return driver.step(chunks)
    }),
  )
  expected!.forEach((rows, sequence) => {
    rows.forEach((row, position) => {
      const difference = maxAbsDiff(row, found![sequence]![position]!)
      assert.ok(difference <= LIBRARY_TOLERANCE, `sequence ${sequence}, position ${position}: logits differ by ${difference}`)
    })
  })
  await Promise.all([reference.dispose(), backend.dispose()])
}
