// What every backend must do with every primitive: mixed batches, chunks and recompute change nothing, and what is nothing is nothing.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import type { CompiledAdapter, VirtualTokens } from '../../src/adapter/primitive.ts'
import type { Backend } from '../../src/backend/backend.ts'
import { adapterSlot } from '../../src/core/ids.ts'
import { LorikeetError } from '../../src/errors.ts'
import type { ModelSource } from '../../src/model/model-source.ts'
import { maxAbsDiff } from './golden.ts'
import { idleKinds } from './idle-primitives.ts'
import { type Generated, PlanDriver } from './plan-driver.ts'
import { createRandom } from './random-adapter.ts'
import { everyKind } from './random-primitives.ts'

export interface PrimitiveSubject {
  readonly create: () => Backend | Promise<Backend>
  /** Largest difference that the order of sums may make between two batches. */
  readonly tolerance: number
  readonly computes: boolean
  readonly mayRefuse: boolean
}

/** Sequences a step: with those of the base model, below the plan driver's limit. */
const BATCH = 12
const NUM_TOKENS = 3
const PROMPT_LENGTH = 11

interface Sequence {
  readonly name: string
  readonly prompt: readonly number[]
  readonly adapterSlot: number
  readonly virtualTokens: VirtualTokens | null
  readonly isCoupled: boolean
}

export function primitiveTests(subject: PrimitiveSubject, model: ModelSource): void {
  let backend: Backend
  before(async () => {
    backend = await subject.create()
  })
  after(() => backend.dispose())

  const isServed = (adapter: CompiledAdapter): boolean => {
    try {
      backend.adapterBytes(adapter)
      return true
    } catch (error) {
      if (subject.mayRefuse && error instanceof LorikeetError && error.code === 'ADAPTER_REFUSED') return false
      throw error
    }
  }

  const kinds = everyKind(model)
  for (let first = 0; first < kinds.length; first += BATCH) {
    const names = kinds.slice(first, first + BATCH).map(({ name }) => name)
    test(`mixed, alone, in chunks, again: ${names.join(', ')}`, async () => {
      const sequences = load(backend, kinds.slice(first, first + BATCH).filter(isServed))
      const mixed = await generate(backend, sequences)
      for (const [i, sequence] of sequences.entries()) {
        const [expected] = await generate(backend, [sequence])
        assertSame(mixed[i]!, expected!, `${sequence.name} alone`)
        if (subject.computes && i > 0) assert.ok(maxAbsDiff(expected!.logits[0]!, mixed[0]!.logits[0]!) > 1e-3, sequence.name)
      }
      const chunked = sequences
        .map((sequence, i) => ({ sequence, expected: mixed[i]! }))
        .filter(({ sequence }) => !sequence.isCoupled)
      const inChunks = await generate(
        backend,
        chunked.map(({ sequence }) => sequence),
        4,
      )
      for (const [i, { sequence, expected }] of chunked.entries())
        assertSame(inChunks[i]!, expected, `${sequence.name} in chunks`)
      await assertResumed(backend, sequences, mixed)
      for (const sequence of sequences) if (sequence.adapterSlot >= 0) backend.unloadAdapter(adapterSlot(sequence.adapterSlot))
    })
  }

  if (!subject.computes) return
  test('adapters that do nothing change nothing', async () => {
    const idle = load(backend, idleKinds(model).filter(isServed))
    const [base, ...others] = await generate(backend, idle)
    for (const [i, found] of others.entries()) assertSame(found, base!, idle[i + 1]!.name)
    for (const { adapterSlot: slot } of idle.slice(1)) backend.unloadAdapter(adapterSlot(slot))
  })

  function assertSame(found: Generated, expected: Generated, what: string): void {
    for (const [i, logits] of found.logits.entries()) {
      const difference = maxAbsDiff(logits, expected.logits[i]!)
      assert.ok(difference <= subject.tolerance, `${what}, token ${i}: logits differ by ${difference}`)
    }
    assert.deepEqual(found.tokens, expected.tokens, what)
  }

  /** Prompt and output computed again in one step, as after a preemption. */
  async function assertResumed(of: Backend, sequences: readonly Sequence[], generated: readonly Generated[]): Promise<void> {
    const driver = new PlanDriver(of)
    const again = sequences.map(({ prompt, ...options }, i) => {
      const sequence = driver.add(prompt, options)
      sequence.tokens.push(...generated[i]!.tokens.slice(0, NUM_TOKENS - 1))
      return sequence
    })
    const rows = await driver.step(again.map((sequence) => ({ sequence })))
    for (const [i, { name }] of sequences.entries()) {
      const difference = maxAbsDiff(rows[i]![0]!, generated[i]!.logits[NUM_TOKENS - 1]!)
      assert.ok(difference <= subject.tolerance, `${name} computed again: logits differ by ${difference}`)
    }
  }
}

/** The base model first, on the same prompt. */
function load(backend: Backend, adapters: readonly CompiledAdapter[]): readonly Sequence[] {
  const random = createRandom(77)
  const prompt = Array.from({ length: PROMPT_LENGTH }, () => 3 + Math.floor(random() * 317))
  const base = { name: 'base', prompt, adapterSlot: -1, virtualTokens: null, isCoupled: false }
  const own = adapters.map((adapter) => {
    const slot = backend.loadAdapter(adapter)
    assert.notEqual(slot, null, `${adapter.name} must fit`)
    const { name, virtualTokens, promptCoupling } = adapter
    return { name, prompt, adapterSlot: slot!, virtualTokens, isCoupled: promptCoupling === 'whole' }
  })
  return [base, ...own]
}

function generate(backend: Backend, sequences: readonly Sequence[], chunkSize?: number): Promise<readonly Generated[]> {
  const driver = new PlanDriver(backend)
  const added = sequences.map(({ prompt, ...options }) => driver.add(prompt, options))
  return driver.generate(added, NUM_TOKENS, chunkSize === undefined ? {} : { chunkSize })
}
