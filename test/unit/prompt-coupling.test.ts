// Prompts whose keys depend on all of the prompt: each is computed in one step, whatever runs beside it, and none waits for ever.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Backend } from '../../src/backend/backend.ts'
import { EngineHarness, type HarnessOptions, prompt, randomSource } from '../support/engine-harness.ts'

/** Prompt tokens of each sequence of an adapter, step by step: [computed in the step, in the whole prompt]. */
type Parts = [inStep: number, ofPrompt: number][]

function watched(options: HarnessOptions = {}): { harness: EngineHarness; parts: Parts } {
  const parts: Parts = []
  const wrapBackend = (backend: Backend): Backend => ({
    name: backend.name,
    vocabSize: backend.vocabSize,
    capacity: backend.capacity,
    lastNativeMs: 0,
    adapterBytes: (adapter) => backend.adapterBytes(adapter),
    prepare: (adapter) => backend.prepare(adapter),
    loadAdapter: (adapter) => backend.loadAdapter(adapter),
    continueLoad: (slot, maxBytes) => backend.continueLoad(slot, maxBytes),
    unloadAdapter: (slot) => backend.unloadAdapter(slot),
    dispose: () => backend.dispose(),
    execute: (plan) => {
      for (let seq = 0; seq < plan.numSeqs; seq++) {
        const firstRow = plan.queryStart[seq]!
        if (plan.adapterSlotOfToken[firstRow]! < 0) continue
        const end = Math.min(plan.contextLens[seq]!, plan.promptEnds[seq]!)
        const start = plan.contextLens[seq]! - (plan.queryStart[seq + 1]! - firstRow)
        if (start < end) parts.push([end - start, plan.promptEnds[seq]! - plan.promptStarts[seq]!])
      }
      return backend.execute(plan)
    },
  })
  return { harness: new EngineHarness({ ...options, wrapBackend }), parts }
}

describe('a prompt that is coupled as a whole', () => {
  it('is never split, among prompts in chunks, decodes and preemptions', async () => {
    const { harness, parts } = watched({ numBlocks: 40, maxNumSeqs: 6, maxNumBatchedTokens: 32, maxModelLen: 80 })
    const adapters = [
      harness.adapters.add('plain', { promptCoupling: 'whole' }),
      harness.adapters.add('behind a prefix', { promptCoupling: 'whole', numVirtualTokens: 5, numGivenTokens: 5 }),
    ]
    const random = randomSource(7)
    for (let i = 0; i < 40; i++) {
      const isCoupled = i % 2 === 0
      harness.add({
        id: `r${i}`,
        prompt: prompt(1 + random.below(isCoupled ? 26 : 50), i),
        adapterId: isCoupled ? adapters[random.below(2)]! : null,
        sampling: { maxTokens: 1 + random.below(20) },
      })
    }
    await harness.drain()
    assert.ok(parts.length > 20, 'some prompts were computed again')
    for (const [inStep, ofPrompt] of parts) assert.equal(inStep, ofPrompt)
    for (let i = 0; i < 40; i++) assert.notEqual(harness.of(`r${i}`).finish?.reason, 'error', `r${i}`)
  })

  it('shares no blocks with an equal one', async () => {
    const { harness, parts } = watched()
    const adapterId = harness.adapters.add('a', { promptCoupling: 'whole' })
    for (const id of ['first', 'second']) await harness.run({ id, prompt: prompt(20), adapterId })
    assert.deepEqual(parts, [
      [20, 20],
      [20, 20],
    ])
    assert.equal(harness.of('second').finish?.metrics.numCachedTokens, 0)
  })

  it('does not wait for as long as others decode', async () => {
    const { harness } = watched({ maxNumSeqs: 8, maxNumBatchedTokens: 32, numBlocks: 1000 })
    const adapterId = harness.adapters.add('a', { promptCoupling: 'whole' })
    let numAdded = 0
    const addDecode = () => harness.add({ id: `d${numAdded++}`, prompt: prompt(2, numAdded), sampling: { maxTokens: 12 } })
    for (let i = 0; i < 7; i++) addDecode()
    await harness.step()
    harness.add({ id: 'coupled', prompt: prompt(24), adapterId, sampling: { maxTokens: 1 } })
    for (let step = 0; step < 20; step++) {
      addDecode()
      await harness.step()
    }
    assert.equal(harness.of('coupled').tokenIds.length, 1)
  })

  it('is refused where no step can hold it beside decodes', async () => {
    const { harness } = watched({ maxNumSeqs: 8, maxNumBatchedTokens: 32 })
    const adapterId = harness.adapters.add('a', { promptCoupling: 'whole' })
    const fits = await harness.run({ id: 'fits', prompt: prompt(24), adapterId })
    assert.equal(fits.finish?.reason, 'length')
    const tooLong = await harness.run({ id: 'too long', prompt: prompt(25), adapterId })
    assert.equal(tooLong.finish?.error?.code, 'ADAPTER_PROMPT_TOO_LONG')
    assert.match(JSON.stringify(tooLong.finish?.error), /24/)
  })

  it('is refused where its scores do not fit a step', async () => {
    // 64 MiB of logits are 8 rows of this vocabulary.
    const { harness } = watched({ vocabSize: 2 ** 21, maxNumSeqs: 8, maxNumBatchedTokens: 64 })
    const adapterId = harness.adapters.add('a', { promptCoupling: 'whole' })
    const sampling = { promptLogprobs: 0, maxTokens: 1 }
    const found = await harness.run({ id: 'scored', prompt: prompt(9), adapterId, sampling })
    assert.equal(found.finish?.error?.code, 'ADAPTER_PROMPT_TOO_LONG')
  })
})

describe('a prompt whose keys depend on its length', () => {
  it('shares blocks with prompts as long alone', async () => {
    const { harness } = watched()
    const adapterId = harness.adapters.add('a', { promptCoupling: 'length' })
    const tokens = prompt(20)
    await harness.run({ id: 'first', prompt: tokens, adapterId })
    const same = await harness.run({ id: 'same', prompt: tokens, adapterId })
    assert.equal(same.finish?.metrics.numCachedTokens, 16)
    const shorter = await harness.run({ id: 'shorter', prompt: tokens.slice(0, 19), adapterId })
    assert.equal(shorter.finish?.metrics.numCachedTokens, 0)
  })
})
