// What HF transformers computes on the golden models, as tests that take the backend as a parameter.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { Backend } from '../../src/backend/backend.ts'
import { createReferenceBackend } from '../../src/backend/reference/reference-backend.ts'
import { LorikeetError } from '../../src/errors.ts'
import { openModel } from '../../src/model/open-model.ts'
import type { ContractSubject } from './contract.ts'
import {
  GOLDEN_MODELS,
  type GoldenCase,
  goldenModelDir,
  isClearChoice,
  maxAbsDiff,
  readGoldenCases,
  readGoldenLogits,
  relativeError,
} from './golden.ts'
import { argmax, PlanDriver } from './plan-driver.ts'
import { randomEverything } from './random-adapter.ts'

/** Between two float32 implementations whose sums run in different orders. */
const LIBRARY_TOLERANCE = 2e-3

const SHAPE = { blockSize: 4, numBlocks: 48, adapterBytes: 64 << 20 }

export function runGoldenSuite(subject: ContractSubject): void {
  describe(`${subject.name} computes what transformers computes`, () => {
    for (const name of GOLDEN_MODELS) {
      const isRefused = subject.refusedModels?.includes(name) ?? false
      test(name, () => (isRefused ? checkRefusal(subject, name) : checkGoldenModel(subject, name)))
    }
  })
}

/** For every backend but the reference itself. */
export function runPrimitiveSuite(subject: ContractSubject): void {
  describe(`${subject.name} computes every primitive as the reference does`, () => {
    for (const name of GOLDEN_MODELS) {
      if (!subject.refusedModels?.includes(name)) test(name, () => checkPrimitives(subject, name))
    }
  })
}

async function checkRefusal(subject: ContractSubject, name: string): Promise<void> {
  const model = openModel(goldenModelDir(name))
  await assert.rejects(
    async () => subject.create({ model, ...SHAPE }),
    (error) => error instanceof LorikeetError && error.code === 'MODEL_UNSUPPORTED',
  )
}

async function checkGoldenModel(subject: ContractSubject, name: string): Promise<void> {
  const dir = goldenModelDir(name)
  const cases = readGoldenCases(dir)
  const expectedLogits = readGoldenLogits(dir)
  const model = openModel(dir)
  const backend = await subject.create({ model, ...SHAPE })
  if (subject.relativeError !== undefined) {
    await checkForced(backend, cases[0]!, expectedLogits, subject.relativeError)
    await backend.dispose()
    return
  }
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

/** The expected tokens one by one, each row of logits compared as half precision allows. */
async function checkForced(backend: Backend, golden: GoldenCase, expected: Float32Array, tolerance: number): Promise<void> {
  const driver = new PlanDriver(backend)
  const sequence = driver.add(golden.prompt)
  const { vocabSize } = backend
  for (const [i, token] of golden.tokens.entries()) {
    if (i * vocabSize === expected.length) return
    const row = expected.subarray(i * vocabSize, (i + 1) * vocabSize)
    const [[found]] = (await driver.step([{ sequence }])) as [[Float32Array]]
    const error = relativeError(found, row)
    assert.ok(error <= tolerance, `token ${i}: relative error ${error}`)
    if (isClearChoice(row, tolerance)) assert.equal(argmax(found), argmax(row), `token ${i}`)
    sequence.tokens.push(token)
  }
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
      const foundRow = found![sequence]![position]!
      const where = `sequence ${sequence}, position ${position}`
      if (subject.relativeError !== undefined) {
        // An adapter with everything in it rounds at some ten places in every layer.
        const error = relativeError(foundRow, row)
        assert.ok(error <= 2 * subject.relativeError, `${where}: relative error ${error}`)
        return
      }
      const difference = maxAbsDiff(row, foundRow)
      assert.ok(difference <= LIBRARY_TOLERANCE, `${where}: logits differ by ${difference}`)
    })
  })
  await Promise.all([reference.dispose(), backend.dispose()])
}
