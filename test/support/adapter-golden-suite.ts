// What HF PEFT computes with the golden adapters, as tests that take the backend as a parameter.

import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { compileAdapter } from '../../src/adapter/compile.ts'
import type { CompiledAdapter } from '../../src/adapter/primitive.ts'
import type { Backend } from '../../src/backend/backend.ts'
import { type AdapterSlot, adapterId } from '../../src/core/ids.ts'
import { lastOccurrence } from '../../src/engine/request-adapter.ts'
import { LorikeetError } from '../../src/errors.ts'
import type { ModelSource } from '../../src/model/model-source.ts'
import { openModel } from '../../src/model/open-model.ts'
import { openSafetensors, readTensorF32 } from '../../src/model/safetensors.ts'
import type { ContractSubject } from './contract.ts'
import { type GoldenCase, goldenModelDir, isClearChoice, maxAbsDiff, readGoldenCases, relativeError } from './golden.ts'
import { argmax, type DrivenSequence, type Generated, PlanDriver } from './plan-driver.ts'

/** Between two float32 implementations whose sums run in different orders. */
const LIBRARY_TOLERANCE = 2e-3

const SHAPE = { blockSize: 4, numBlocks: 640, adapterBytes: 64 << 20 }

/** The goldens were generated with a minimum length, which keeps end-of-sequence from being sampled. */
const EOS_TOKEN_ID = 2

/** Most sequences that PlanDriver puts in a step. */
const MAX_SEQUENCES = 32

interface Golden {
  readonly name: string
  readonly cases: readonly GoldenCase[]
  readonly adapter: CompiledAdapter
  /** Logits before the first tokens of each case. */
  readonly logits: readonly Float32Array[]
}

export const ADAPTER_ARCHITECTURES = ['llama', 'llama3rope', 'mistral', 'qwen2', 'qwen3', 'gemma2', 'phi3', 'gpt2'] as const

export function goldenAdapterDir(architecture: string, name = ''): string {
  return join(import.meta.dirname, '../fixtures/adapters', architecture, name)
}

export function runAdapterGoldenSuite(subject: ContractSubject): void {
  for (const architecture of ADAPTER_ARCHITECTURES) {
    describe(`${subject.name} computes what PEFT computes on ${architecture}`, () => architectureTests(subject, architecture))
  }
}

function architectureTests(subject: ContractSubject, architecture: string): void {
  const model = openModel(goldenModelDir(architecture))
  const names = readdirSync(goldenAdapterDir(architecture))
  const goldens = names.map((name, i) => readGolden(architecture, name, model, i + 1))
  const refusalOf = ({ adapter }: Golden): string | null => (subject.mayRefuseAdapters ? refusal(backend, adapter) : null)
  let backend: Backend
  before(async () => {
    backend = await subject.create({ model, ...SHAPE })
  })
  after(() => backend.dispose())

  for (const golden of goldens) {
    test(golden.name, async (t) => {
      const reason = refusalOf(golden)
      if (reason !== null) return t.skip(reason)
      const slot = load(backend, golden)
      try {
        const driver = new PlanDriver(backend)
        const sequences = golden.cases.map(({ prompt }) => addSequence(driver, golden, prompt, slot))
        const forced = subject.relativeError === undefined ? null : golden.cases.map(({ tokens }) => tokens)
        check(golden, await generate(driver, sequences, golden.cases[0]!.tokens.length, forced), subject.relativeError)
      } finally {
        backend.unloadAdapter(slot)
      }
    })
  }

  test('all of them and the base model in one batch', async () => {
    const served = goldens.filter((golden) => refusalOf(golden) === null)
    for (let start = 0; start < served.length; start += MAX_SEQUENCES - 1) {
      await checkBatch(backend, architecture, served.slice(start, start + MAX_SEQUENCES - 1), subject.relativeError)
    }
  })
}

/** Why the backend does not take an adapter; null when it does. */
function refusal(backend: Backend, adapter: CompiledAdapter): string | null {
  try {
    backend.adapterBytes(adapter)
    return null
  } catch (error) {
    if (error instanceof LorikeetError && error.code === 'ADAPTER_REFUSED') return error.message
    throw error
  }
}

async function checkBatch(
  backend: Backend,
  architecture: string,
  goldens: readonly Golden[],
  tolerance: number | undefined,
): Promise<void> {
  const rows = goldens.map((golden) => ({ golden, slot: load(backend, golden) }))
  const [base] = readGoldenCases(goldenModelDir(architecture))
  const driver = new PlanDriver(backend)
  const sequences = rows.map(({ golden, slot }) => addSequence(driver, golden, golden.cases[0]!.prompt, slot))
  const forced = tolerance === undefined ? null : [...goldens.map(({ cases }) => cases[0]!.tokens), base!.tokens]
  const generated = await generate(driver, [...sequences, driver.add(base!.prompt)], base!.tokens.length, forced)
  for (const [i, { golden }] of rows.entries()) {
    check({ ...golden, cases: golden.cases.slice(0, 1) }, [generated[i]!], tolerance)
  }
  if (tolerance === undefined) assert.deepEqual(generated.at(-1)!.tokens, base!.tokens)
  for (const { slot } of rows) backend.unloadAdapter(slot)
}

function readGolden(architecture: string, name: string, model: ModelSource, id: number): Golden {
  const dir = goldenAdapterDir(architecture, name)
  const cases = readGoldenCases(dir)
  const { tensors } = openSafetensors(join(dir, 'expected.safetensors'))
  const { adapter, warnings } = compileAdapter(dir, model, adapterId(id), name)
  // Older transformers scaled soft prompts on Gemma 2; the goldens come from one that does not.
  const isDoubted = architecture === 'gemma2' && adapter.virtualTokens?.kind === 'soft-prompt'
  assert.equal(warnings.length, isDoubted ? 1 : 0, warnings.join())
  return { name, cases, adapter, logits: cases.map((_, i) => readTensorF32(tensors.get(`logits_${i}`)!)) }
}

function load(backend: Backend, { adapter }: Golden): AdapterSlot {
  const slot = backend.loadAdapter(adapter)
  assert.ok(slot !== null, 'the budget holds the golden adapters')
  return slot
}

/** Activated LoRA acts from the last invocation on, and nowhere without one. */
function addSequence(driver: PlanDriver, golden: Golden, prompt: readonly number[], slot: AdapterSlot): DrivenSequence {
  const { invocationTokenIds, virtualTokens } = golden.adapter
  const start = invocationTokenIds === null ? 0 : lastOccurrence(Int32Array.from(prompt), invocationTokenIds)
  return start < 0 ? driver.add(prompt) : driver.add(prompt, { adapterSlot: slot, activationStart: start, virtualTokens })
}

/** Greedy, or with the tokens of `forced` whatever the logits say. */
async function generate(
  driver: PlanDriver,
  sequences: readonly DrivenSequence[],
  numTokens: number,
  forced: readonly (readonly number[])[] | null,
): Promise<Generated[]> {
  const generated = sequences.map(() => ({ tokens: [] as number[], logits: [] as Float32Array[] }))
  for (let i = 0; i < numTokens; i++) {
    const rows = await driver.step(sequences.map((sequence) => ({ sequence })))
    for (const [s, sequence] of sequences.entries()) {
      const logits = rows[s]![0]!
      const token = argmax(logits.map((logit, id) => (id === EOS_TOKEN_ID ? Number.NEGATIVE_INFINITY : logit)))
      sequence.tokens.push(forced?.[s]?.[i] ?? token)
      generated[s]!.tokens.push(token)
      generated[s]!.logits.push(logits)
    }
  }
  return generated
}

function check(golden: Golden, generated: readonly Generated[], tolerance: number | undefined): void {
  if (tolerance !== undefined) {
    checkRounded(golden, generated, tolerance)
    return
  }
  const { name, cases, logits } = golden
  for (const [i, { tokens }] of cases.entries()) {
    const expected = logits[i]!
    const found = generated[i]!
    assert.deepEqual(found.tokens, tokens, `${name}, case ${i}`)
    const { length } = found.logits[0]!
    for (let row = 0; row * length < expected.length; row++) {
      const difference = maxAbsDiff(found.logits[row]!, expected.subarray(row * length, (row + 1) * length))
      assert.ok(difference <= LIBRARY_TOLERANCE, `${name}, case ${i}, token ${row}: logits differ by ${difference}`)
    }
  }
}

function checkRounded({ name, cases, logits }: Golden, generated: readonly Generated[], tolerance: number): void {
  for (const i of cases.keys()) {
    const expected = logits[i]!
    const found = generated[i]!
    const { length } = found.logits[0]!
    for (let row = 0; row * length < expected.length; row++) {
      const wanted = expected.subarray(row * length, (row + 1) * length)
      const error = relativeError(found.logits[row]!, wanted)
      assert.ok(error <= tolerance, `${name}, case ${i}, token ${row}: relative error ${error}`)
      if (isClearChoice(wanted, tolerance))
        assert.equal(argmax(found.logits[row]!), argmax(wanted), `${name}, case ${i}, token ${row}`)
    }
  }
}
