// What AdapterHub's library computes with the golden adapters, as tests that take the backend as a parameter.

import assert from 'node:assert/strict'
import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { compileAdapter } from '../../src/adapter/compile.ts'
import type { Backend } from '../../src/backend/backend.ts'
import { adapterId } from '../../src/core/ids.ts'
import { openModel } from '../../src/model/open-model.ts'
import { openSafetensors, readTensorF32 } from '../../src/model/safetensors.ts'
import type { ContractSubject } from './contract.ts'
import { goldenModelDir, maxAbsDiff, readGoldenCases } from './golden.ts'
import { type DrivenSequence, PlanDriver } from './plan-driver.ts'

/** Between two float32 implementations whose sums run in different orders. */
const LIBRARY_TOLERANCE = 2e-3

const SHAPE = { blockSize: 4, numBlocks: 640, adapterBytes: 64 << 20 }

const ROOT = join(import.meta.dirname, '../fixtures/adapterhub')

export const HUB_GOLDENS: readonly string[] = readdirSync(ROOT).filter((name) => statSync(join(ROOT, name)).isDirectory())

export function hubGoldenDir(name: string): string {
  return join(ROOT, name)
}

export function runHubGoldenSuite(subject: ContractSubject): void {
  describe(`${subject.name} computes what AdapterHub computes`, () => {
    const model = openModel(goldenModelDir('llama'))
    let backend: Backend
    before(async () => {
      backend = await subject.create({ model, ...SHAPE })
    })
    after(() => backend.dispose())
    const compiled = HUB_GOLDENS.map((name, i) => compileAdapter(hubGoldenDir(name), model, adapterId(i + 1), name).adapter)

    for (const adapter of compiled) {
      test(adapter.name, async () => {
        const adapterSlot = backend.loadAdapter(adapter)
        assert.ok(adapterSlot !== null, 'the budget holds the golden adapters')
        const { virtualTokens } = adapter
        const driver = new PlanDriver(backend)
        const cases = readGoldenCases(hubGoldenDir(adapter.name))
        const prompts = cases.map(({ prompt }) => driver.add(prompt, { adapterSlot, virtualTokens }))
        const first = await rowsOf(driver, prompts)
        for (const [i, row] of first.entries()) check(row, expectedRow(adapter.name, i, 0), `case ${i}, after the prompt`)
        // A token alone has position 0 here and another one in the library: with nothing but itself to see that is the same,
        // with a prefix it is not.
        if (virtualTokens === null) {
          const { tokens } = cases[0]!
          const alone = tokens.slice(0, -1).map((token) => driver.add([token], { adapterSlot }))
          const rows = await rowsOf(driver, alone)
          for (const [i, row] of rows.entries()) check(row, expectedRow(adapter.name, 0, i + 1), `token ${i} alone`)
        }
        backend.unloadAdapter(adapterSlot)
      })
    }

    test('all of them and the base model in one step', async () => {
      const slots = compiled.map((adapter) => backend.loadAdapter(adapter)!)
      const driver = new PlanDriver(backend)
      const prompts = compiled.map(({ name, virtualTokens }, i) => {
        const { prompt } = readGoldenCases(hubGoldenDir(name))[0]!
        return driver.add(prompt, { adapterSlot: slots[i]!, virtualTokens })
      })
      const [base] = readGoldenCases(goldenModelDir('llama'))
      const rows = await rowsOf(driver, [...prompts, driver.add(base!.prompt)])
      compiled.forEach(({ name }, i) => {
        check(rows[i]!, expectedRow(name, 0, 0), name)
      })
      for (const slot of slots) backend.unloadAdapter(slot)
    })
  })
}

async function rowsOf(driver: PlanDriver, sequences: readonly DrivenSequence[]): Promise<readonly Float32Array[]> {
  const rows = await driver.step(sequences.map((sequence) => ({ sequence })))
  return rows.map((each) => each[0]!)
}

function expectedRow(name: string, index: number, row: number): Float32Array {
  const { tensors } = openSafetensors(join(hubGoldenDir(name), 'expected.safetensors'))
  const tensor = tensors.get(`logits_${index}`)!
  const width = tensor.shape[1]!
  return readTensorF32(tensor).subarray(row * width, (row + 1) * width)
}

function check(found: Float32Array, expected: Float32Array, what: string): void {
  const difference = maxAbsDiff(found, expected)
  assert.ok(difference <= LIBRARY_TOLERANCE, `${what}: logits differ by ${difference}`)
}
