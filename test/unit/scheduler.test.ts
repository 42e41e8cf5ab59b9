import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { EngineRequest } from '../../src/engine/request.ts'
import { MAX_TIMES_PASSED } from '../../src/engine/scheduler.ts'
import { EngineHarness, newRequest, prompt } from '../support/engine-harness.ts'

const BASE = {
  id: null,
  name: '',
  activationStart: 0,
  kvDigest: '',
  numVirtualTokens: 0,
  numGivenTokens: 0,
  positionOffset: 0,
  promptCoupling: 'none' as const,
}

describe('request status', () => {
  it('moves along the table only', () => {
    const request = new EngineRequest(newRequest({ id: 'a', prompt: [1] }), BASE, 0, 0)
    assert.throws(() => request.moveTo('preempted'), /waiting -> preempted/)
    for (const status of ['running', 'preempted', 'running', 'finished'] as const) request.moveTo(status)
    for (const status of ['waiting', 'running', 'preempted', 'finished'] as const) {
      assert.throws(() => request.moveTo(status), /finished ->/)
    }
  })
})

/** Ids in the order of their first scheduling. */
async function admissionOrder(harness: EngineHarness, ids: readonly string[]): Promise<string[]> {
  await harness.drain()
  const startOf = (id: string): number => harness.of(id).finish?.metrics.firstScheduledAtMs ?? Number.NaN
  return [...ids].sort((a, b) => startOf(a) - startOf(b))
}

describe('Scheduler', () => {
  it('admits by arrival', async () => {
    const harness = new EngineHarness({ maxNumSeqs: 1 })
    const ids = ['a', 'b', 'c', 'd']
    for (const id of ids) harness.add({ id, prompt: prompt(3) })
    assert.deepEqual(await admissionOrder(harness, ids), ids)
  })

  it('admits lower priority values first, ties by arrival', async () => {
    const harness = new EngineHarness({ maxNumSeqs: 1 })
    const priorities = { a: 5, b: -1, c: 5, d: 0, e: -1 }
    for (const [id, priority] of Object.entries(priorities)) harness.add({ id, prompt: prompt(3), priority })
    assert.deepEqual(await admissionOrder(harness, Object.keys(priorities)), ['b', 'e', 'd', 'a', 'c'])
  })

  it('preempts the least urgent, newest request', async () => {
    const harness = new EngineHarness({ numBlocks: 10, maxModelLen: 40 })
    const sampling = { maxTokens: 20 }
    harness.add({ id: 'late', prompt: prompt(8, 1), sampling, priority: 1 })
    harness.add({ id: 'old', prompt: prompt(8, 2), sampling })
    harness.add({ id: 'new', prompt: prompt(8, 3), sampling })
    await harness.drain()
    const numPreemptions = (id: string): number => harness.of(id).finish?.metrics.numPreemptions ?? -1
    assert.equal(numPreemptions('old'), 0)
    assert.ok(numPreemptions('late') > 0)
  })

  it('spreads copies of adapters over the steps of others, and finishes one before the next', async () => {
    const mib = 1024 * 1024
    const harness = new EngineHarness({ adapterBytes: 100 * mib })
    const ids = ['x', 'y', 'z'].map((name) => harness.adapters.add(name, { numBytes: 10 * mib }))
    harness.add({ id: 'base', prompt: prompt(3), sampling: { maxTokens: 30 } })
    await harness.step()
    ids.forEach((adapterId, i) => {
      harness.add({ id: `r${i}`, prompt: prompt(3), adapterId, sampling: { maxTokens: 2 } })
    })
    const firstTokenStep = [0, 0, 0]
    for (let step = 2; step <= 12; step++) {
      const before = harness.adapters.numBytesCopied
      await harness.step()
      assert.equal(harness.tokensOf('base').length, step, 'no step passes without a token of the base request')
      assert.ok(harness.adapters.numBytesCopied - before <= 4 * mib, `step ${step}`)
      firstTokenStep.forEach((first, i) => {
        if (first === 0 && harness.tokensOf(`r${i}`).length > 0) firstTokenStep[i] = step
      })
    }
    assert.deepEqual(firstTokenStep, [4, 7, 10])
  })

  it('copies an adapter in one go when nobody else runs', async () => {
    const harness = new EngineHarness({ adapterBytes: 1 << 30 })
    const adapterId = harness.adapters.add('x', { numBytes: 1 << 29 })
    harness.add({ id: 'a', prompt: prompt(3), adapterId, sampling: { maxTokens: 1 } })
    await harness.step()
    assert.equal(harness.tokensOf('a').length, 1)
  })

  it('keeps decoding while a long prompt is computed in chunks', async () => {
    const harness = new EngineHarness({ maxNumBatchedTokens: 8, maxNumSeqs: 4, numBlocks: 100 })
    harness.add({ id: 'decode', prompt: prompt(4), sampling: { maxTokens: 20 } })
    await harness.step()
    harness.add({ id: 'long', prompt: prompt(70), sampling: { maxTokens: 1 } })
    for (let i = 2; i <= 10; i++) {
      await harness.step()
      assert.equal(harness.tokensOf('decode').length, i)
    }
    assert.equal(harness.tokensOf('long').length, 0)
    await harness.step()
    assert.equal(harness.tokensOf('long').length, 1, '70 tokens at 7 a step')
  })

  it('never schedules more tokens than the budget or more sequences than the cap', async () => {
    const harness = new EngineHarness({ maxNumBatchedTokens: 10, maxNumSeqs: 3, numBlocks: 100 })
    for (let i = 0; i < 20; i++) harness.add({ id: `r${i}`, prompt: prompt(1 + 3 * i, i) })
    await harness.drain()
    const timings = harness.events.flatMap((event) => (event.type === 'step' ? [event.timing] : []))
    assert.ok(Math.max(...timings.map((timing) => timing.numTokens)) === 10)
    assert.ok(Math.max(...timings.map((timing) => timing.numSeqs)) === 3)
  })

  it('passes over a request whose adapter has no room, but not for ever', async () => {
    // One adapter fits. `hot` never lets go of it: a new request comes before the last one ends.
    const harness = new EngineHarness({ adapterBytes: 1, maxNumSeqs: 4, numBlocks: 200 })
    const hot = harness.adapters.add('hot')
    const cold = harness.adapters.add('cold')
    let numHot = 0
    const addHot = (): void =>
      harness.add({ id: `hot${numHot++}`, prompt: prompt(3), adapterId: hot, sampling: { maxTokens: 4 } })
    addHot()
    await harness.step()
    harness.add({ id: 'cold', prompt: prompt(3), adapterId: cold, sampling: { maxTokens: 4 } })
    let numSteps = 0
    while (harness.of('cold').finish === null) {
      addHot()
      await harness.step()
      assert.ok(++numSteps < 20 * MAX_TIMES_PASSED, 'cold starves')
    }
    const { firstScheduledAtMs } = harness.of('cold').finish!.metrics
    const numBefore = [...harness.heard.entries()].filter(
      ([id, heard]) =>
        id !== 'cold' && (heard.finish?.metrics.firstScheduledAtMs ?? Number.POSITIVE_INFINITY) < firstScheduledAtMs!,
    ).length
    assert.ok(numBefore > 1 && numBefore <= MAX_TIMES_PASSED + 1, `${numBefore} went before`)
    await harness.drain()
  })

  it('still admits base requests while it holds others back for a starving adapter', async () => {
    const harness = new EngineHarness({ adapterBytes: 1, maxNumSeqs: 80, maxNumBatchedTokens: 400, numBlocks: 400 })
    const hot = harness.adapters.add('hot')
    const cold = harness.adapters.add('cold')
    harness.add({ id: 'first', prompt: prompt(3), adapterId: hot, sampling: { maxTokens: 50 } })
    await harness.step()
    harness.add({ id: 'cold', prompt: prompt(3), adapterId: cold })
    for (let i = 0; i < MAX_TIMES_PASSED + 5; i++) harness.add({ id: `hot${i}`, prompt: prompt(3), adapterId: hot })
    harness.add({ id: 'base', prompt: prompt(3) })
    await harness.step()
    assert.equal(harness.tokensOf(`hot${MAX_TIMES_PASSED - 1}`).length, 1)
    assert.equal(harness.tokensOf(`hot${MAX_TIMES_PASSED}`).length, 0)
    assert.equal(harness.tokensOf('base').length, 1)
    await harness.drain()
  })

  it('does not hold others back for an adapter that is only loading', async () => {
    const harness = new EngineHarness({ maxNumSeqs: 80, maxNumBatchedTokens: 400, numBlocks: 400 })
    const hot = harness.adapters.add('hot')
    const slow = harness.adapters.add('slow')
    harness.adapters.dropFromHost(slow)
    harness.add({ id: 'slow', prompt: prompt(3), adapterId: slow })
    for (let i = 0; i < 2 * MAX_TIMES_PASSED; i++) harness.add({ id: `hot${i}`, prompt: prompt(3), adapterId: hot })
    await harness.step()
    assert.equal(harness.stats?.numRunning, 2 * MAX_TIMES_PASSED)
    harness.adapters.finishLoad(slow)
    await harness.drain()
  })

  it('runs many distinct adapters in one step', async () => {
    const harness = new EngineHarness({ maxNumSeqs: 32, numBlocks: 300, maxNumBatchedTokens: 200 })
    for (let i = 0; i < 20; i++) harness.add({ id: `r${i}`, prompt: prompt(5, i), adapterId: harness.adapters.add(`a${i}`) })
    await harness.step()
    assert.equal(harness.stats?.runningAdapters.length, 20)
    await harness.drain()
  })
})
