// Methods that no library computes on a causal decoder, against float64 programs written from their papers (test/support/oracle).

import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import { compileAdapter } from '../../src/adapter/compile.ts'
import type { CompiledAdapter } from '../../src/adapter/primitive.ts'
import type { Backend } from '../../src/backend/backend.ts'
import { createOnnxBackend } from '../../src/backend/onnx/onnx-backend.ts'
import { createReferenceBackend } from '../../src/backend/reference/reference-backend.ts'
import { adapterId } from '../../src/core/ids.ts'
import { openModel } from '../../src/model/open-model.ts'
import { goldenModelDir } from '../support/golden.ts'
import { oracleLogits } from '../support/oracle/decoder.ts'
import type { Matrix } from '../support/oracle/linear-algebra.ts'
import { ORACLE_METHODS } from '../support/oracle/methods.ts'
import { PlanDriver } from '../support/plan-driver.ts'

/** Of float32 to float64 logits, which are some units large. */
const TOLERANCE = 1e-3

/** A method that changes less than this proves nothing. */
const LEAST_EFFECT = 5e-2

const PROMPT = [5, 300, 17, 42, 9, 128, 77]
/** Rows computed in a step of their own. */
const NUM_FIRST = 3

const model = openModel(goldenModelDir('llama'))
const SHAPE = { model, blockSize: 4, kvCache: { numBlocks: 400 }, adapterBytes: 64 << 20 }
const base = oracleLogits(PROMPT)
const cases = ORACLE_METHODS.map((method, i) => ({
  name: method.name,
  expected: oracleLogits(PROMPT, method.adapter),
  adapter: compileAdapter(method.write(), model, adapterId(i + 1), method.name).adapter,
}))

const backends: Readonly<Record<string, Backend>> = {
  reference: createReferenceBackend(SHAPE),
  onnx: await createOnnxBackend({ ...SHAPE, numThreads: 1 }),
}

for (const [name, backend] of Object.entries(backends)) {
  describe(`${name} computes what the papers say`, () => {
    after(() => backend.dispose())
    test('the base model', async () => {
      const driver = new PlanDriver(backend)
      const [rows] = await driver.step([{ sequence: driver.add(PROMPT), allLogits: true }])
      check(rows!, base)
    })

    for (const { name: method, adapter, expected } of cases) {
      test(`${method}, its prompt in two steps`, async () => {
        const adapterSlot = backend.loadAdapter(adapter)!
        check(await rowsOf(backend, adapter, adapterSlot), expected)
        assert.ok(largestDifference(expected, base) > LEAST_EFFECT, 'the method changes the logits')
        backend.unloadAdapter(adapterSlot)
      })
    }

    test('all of them and the base model in one step', async () => {
      const slots = cases.map(({ adapter }) => backend.loadAdapter(adapter)!)
      for (let start = 0; start < cases.length; start += 31) {
        const driver = new PlanDriver(backend)
        const served = cases.slice(start, start + 31)
        const sequences = served.map(({ adapter: { virtualTokens } }, i) =>
          driver.add(PROMPT, { adapterSlot: slots[start + i]!, virtualTokens }),
        )
        const chunks = [...sequences, driver.add(PROMPT)].map((sequence) => ({ sequence }))
        const rows = await driver.step(chunks)
        for (const [i, { expected }] of [...served, { expected: base }].entries()) check(rows[i]!, expected.slice(-1))
      }
      for (const slot of slots) backend.unloadAdapter(slot)
    })
  })
}

async function rowsOf(backend: Backend, adapter: CompiledAdapter, adapterSlot: number): Promise<readonly Float32Array[]> {
  const driver = new PlanDriver(backend)
  const sequence = driver.add(PROMPT, { adapterSlot, virtualTokens: adapter.virtualTokens })
  const first = await driver.step([
    { sequence, numTokens: sequence.promptStart - sequence.numGiven + NUM_FIRST, allLogits: true },
  ])
  const rest = await driver.step([{ sequence, allLogits: true }])
  return [...first[0]!, ...rest[0]!].slice(-PROMPT.length)
}

function check(found: readonly Float32Array[], expected: Matrix): void {
  assert.equal(found.length, expected.length)
  const difference = largestDifference(
    found.map((row) => [...row]),
    expected,
  )
  assert.ok(difference <= TOLERANCE, `logits differ by ${difference}`)
}

function largestDifference(a: Matrix, b: Matrix): number {
  return Math.max(...a.flatMap((row, i) => row.map((value, j) => Math.abs(value - b[i]![j]!))))
}
