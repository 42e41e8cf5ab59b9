// Requests of adapters with virtual tokens: prefixes, whose keys and values are given, and soft prompts, which are computed.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Backend } from '../../src/backend/backend.ts'
import { givenRuns } from '../../src/core/step-plan.ts'
import { LorikeetError } from '../../src/errors.ts'
import { type AddOptions, EngineHarness, type HarnessOptions, prompt, randomSource } from '../support/engine-harness.ts'
import type { FakeAdapterTraits } from '../support/fake-adapters.ts'

/** The harness's block size. */
const BLOCK_SIZE = 4

const prefixOf = (numTokens: number): Partial<FakeAdapterTraits> => ({ numVirtualTokens: numTokens, numGivenTokens: numTokens })
const promptOf = (numTokens: number): Partial<FakeAdapterTraits> => ({ numVirtualTokens: numTokens })

const KINDS = [
  { kind: 'prefix', traitsOf: prefixOf },
  { kind: 'soft prompt', traitsOf: promptOf },
] as const

/** Tokens of one request on an engine of its own. */
async function alone(traits: Partial<FakeAdapterTraits>, request: Omit<AddOptions, 'id'>, options: HarnessOptions = {}) {
  const harness = new EngineHarness({ enablePrefixCaching: false, ...options })
  const adapterId = harness.adapters.add('a', traits)
  return harness.run({ ...request, id: 'alone', adapterId })
}

const numRows = (harness: EngineHarness): number =>
  harness.events.reduce((sum, event) => sum + (event.type === 'step' ? event.timing.numTokens : 0), 0)

for (const { kind, traitsOf } of KINDS) {
  describe(`requests behind a ${kind}`, () => {
    it('get the same tokens whole, in chunks, from the cache, preempted and mixed', async () => {
      for (const numVirtual of [1, 3, 4, 11, 16]) {
        const traits = traitsOf(numVirtual)
        const cases = [0, 1, 2, 3].map((i) => ({ id: `r${i}`, prompt: prompt(1 + 6 * i, i), sampling: { maxTokens: 12 } }))
        const expected: number[][] = []
        for (const request of cases) expected.push((await alone(traits, request)).tokenIds)
        assert.notDeepEqual(expected[1], (await new EngineHarness().run(cases[1]!)).tokenIds, 'the adapter does something')
        for (const options of [
          {},
          { maxNumBatchedTokens: 5, maxNumSeqs: 5 },
          { numBlocks: 16 },
          { enablePrefixCaching: false },
        ]) {
          const harness = new EngineHarness(options)
          const adapterId = harness.adapters.add('a', traits)
          const other = harness.adapters.add('b', { digest: 'another' })
          for (const round of ['cold', 'warm']) {
            for (const request of cases) harness.add({ ...request, id: `${round} ${request.id}`, adapterId })
            harness.add({ id: `${round} base`, prompt: prompt(9, 7) })
            harness.add({ id: `${round} other`, prompt: prompt(9, 7), adapterId: other })
            await harness.drain()
            for (const [i, { id }] of cases.entries()) assert.deepEqual(harness.tokensOf(`${round} ${id}`), expected[i], id)
          }
          const base = await new EngineHarness().run({ id: 'base', prompt: prompt(9, 7) })
          assert.deepEqual(harness.tokensOf('warm base'), base.tokenIds)
        }
      }
    })

    it('a hundred of them at once hold one copy of the full blocks', async () => {
      const numVirtual = 5 * BLOCK_SIZE + 2
      const harness = new EngineHarness({ numBlocks: 1000, maxNumSeqs: 128, maxNumBatchedTokens: 2048 })
      const adapterId = harness.adapters.add('a', traitsOf(numVirtual))
      for (let i = 0; i < 100; i++) {
        harness.add({ id: `r${i}`, prompt: [i + 1], adapterId, sampling: { maxTokens: 4 }, cacheSalt: `tenant ${i % 7}` })
      }
      for (let step = 0; step < 3 && harness.stats?.numRunning !== 100; step++) await harness.step()
      assert.equal(harness.stats?.numRunning, 100)
      // The last two virtual tokens, the prompt and its output are each request's own.
      assert.equal(harness.stats?.numUsedBlocks, 5 + 100 * Math.ceil((2 + 1 + 1) / BLOCK_SIZE))
      await harness.drain()
      for (const i of [0, 1, 57, 99]) {
        const { tokenIds } = await alone(traitsOf(numVirtual), { prompt: [i + 1], sampling: { maxTokens: 4 } })
        assert.deepEqual(harness.tokensOf(`r${i}`), tokenIds, `request ${i}`)
      }
      const numOwn = kind === 'prefix' ? 0 : 2
      const numOnce = kind === 'prefix' ? 0 : 5 * BLOCK_SIZE
      assert.equal(numRows(harness), numOnce + 100 * (numOwn + 1 + 3), 'rows computed')
    })

    it('shares prompts behind it with requests of the same salt alone', async () => {
      const harness = new EngineHarness()
      const adapterId = harness.adapters.add('a', traitsOf(6))
      const request = { prompt: prompt(20), adapterId, sampling: { maxTokens: 2 } }
      const cachedOf = async (id: string, change: Partial<AddOptions> = {}) =>
        (await harness.run({ id, ...request, ...change })).finish?.metrics.numCachedTokens
      assert.equal(await cachedOf('cold'), 0)
      // 26 tokens: six full blocks, of which six tokens are virtual.
      assert.equal(await cachedOf('same'), 24 - 6)
      assert.equal(await cachedOf('other tenant', { cacheSalt: 'x' }), 0)
      assert.equal(await cachedOf('base', { adapterId: null }), 0)
      assert.equal(await cachedOf('other adapter', { adapterId: harness.adapters.add('b', traitsOf(6)) }), 0)
    })

    it('counts and sees nothing of the virtual tokens', async () => {
      const plain = new EngineHarness()
      const harness = new EngineHarness()
      const adapterId = harness.adapters.add('a', traitsOf(9))
      const sampling = { maxTokens: 5, promptLogprobs: 2, repetitionPenalty: 1.5, badWords: [[3, 4], [5]] }
      for (const round of ['cold', 'warm']) {
        const heard = await harness.run({ id: round, prompt: prompt(7), adapterId, sampling })
        const { metrics } = heard.finish ?? assert.fail()
        assert.deepEqual([metrics.numPromptTokens, metrics.numOutputTokens, metrics.numCachedTokens], [7, 5, 0])
        assert.deepEqual(
          heard.promptLogprobs?.map(({ tokenId }) => tokenId),
          prompt(7).slice(1),
        )
      }
      await plain.run({ id: 'plain', prompt: prompt(7), sampling })
      assert.equal(harness.stats?.numPromptTokens, 2 * (plain.stats?.numPromptTokens ?? 0))
      assert.equal(harness.stats?.numPrefixQueryTokens, 14)
      assert.equal(harness.stats?.numPrefixHitTokens, 0)
    })

    it('scores a prompt in chunks as whole, and computes shared blocks once', async () => {
      const request = { prompt: prompt(23), sampling: { maxTokens: 0, promptLogprobs: 1 } }
      const whole = await alone(traitsOf(10), request)
      const harness = new EngineHarness({ maxNumBatchedTokens: 4, maxNumSeqs: 4 })
      const adapterId = harness.adapters.add('a', traitsOf(10))
      for (const id of ['a', 'b']) {
        const { promptLogprobs } = await harness.run({ id, ...request, adapterId })
        assert.deepEqual(promptLogprobs, whole.promptLogprobs)
        assert.equal(promptLogprobs?.length, 22)
      }
      assert.equal(numRows(harness), kind === 'prefix' ? 46 : 10 + 2 + 46)
    })

    it('stop at the context limit, which the virtual tokens count against', async () => {
      const options = { maxModelLen: 32, sampling: { maxTokens: 100 } }
      const heard = await alone(traitsOf(10), { prompt: prompt(8), sampling: { maxTokens: 100 } }, options)
      assert.equal(heard.tokenIds.length, 32 - 10 - 8)
      assert.equal(heard.finish?.reason, 'length')
      const refused = await alone(traitsOf(10), { prompt: prompt(23), sampling: { maxTokens: 1 } }, options)
      assert.ok(refused.finish?.error)
      assert.equal(refused.finish.error.code, 'ADAPTER_CONTEXT_LENGTH_EXCEEDED')
      const { message } = LorikeetError.fromWire(refused.finish.error)
      assert.match(message, /23 in the prompt, 1 in the completion, 10 virtual tokens/)
    })

    it('survive the end of the one that was computing for them', async () => {
      for (const end of ['abort', 'failure']) {
        let isFailing = end === 'failure'
        const wrapBackend = (backend: Backend): Backend =>
          Object.assign(Object.create(backend), {
            capacity: backend.capacity,
            vocabSize: backend.vocabSize,
            lastNativeMs: 0,
            loadAdapter: backend.loadAdapter.bind(backend),
            unloadAdapter: backend.unloadAdapter.bind(backend),
            execute: async (plan: Parameters<Backend['execute']>[0]) => {
              if (isFailing) throw new Error('lost')
              return backend.execute(plan)
            },
          })
        const harness = new EngineHarness({ maxNumBatchedTokens: 6, maxNumSeqs: 4, wrapBackend })
        const adapterId = harness.adapters.add('a', traitsOf(20))
        for (const id of ['leader', 'second', 'third']) harness.add({ id, prompt: prompt(5), adapterId })
        await harness.step()
        isFailing = false
        assert.equal(harness.stats?.numRunning, end === 'abort' ? 1 : 0)
        if (end === 'abort') harness.abort('leader')
        await harness.drain()
        const { tokenIds } = await alone(traitsOf(20), { prompt: prompt(5) })
        assert.equal(harness.of('leader').finish?.reason, end === 'abort' ? 'abort' : 'error')
        assert.deepEqual(harness.tokensOf('second'), tokenIds)
        assert.deepEqual(harness.tokensOf('third'), tokenIds)
      }
    })
  })
}

describe('a prefix', () => {
  it('is written once for its full blocks, and again only for what a request does not share', async () => {
    let numWritten = 0
    const wrapBackend = (backend: Backend): Backend =>
      Object.assign(Object.create(backend), {
        capacity: backend.capacity,
        vocabSize: backend.vocabSize,
        lastNativeMs: 0,
        loadAdapter: backend.loadAdapter.bind(backend),
        unloadAdapter: backend.unloadAdapter.bind(backend),
        execute: (plan: Parameters<Backend['execute']>[0]) => {
          for (const { kvSlots } of givenRuns(plan, BLOCK_SIZE)) numWritten += kvSlots.length
          return backend.execute(plan)
        },
      })
    const harness = new EngineHarness({ wrapBackend })
    const adapterId = harness.adapters.add('a', prefixOf(4 * BLOCK_SIZE + 1))
    for (let i = 0; i < 10; i++) harness.add({ id: `r${i}`, prompt: prompt(2, i), adapterId, sampling: { maxTokens: 8 } })
    await harness.drain()
    assert.equal(numWritten, 4 * BLOCK_SIZE + 10)
  })
})

describe('random mixes of virtual tokens', () => {
  it('finish in a small pool with the tokens of each request alone', async () => {
    const random = randomSource(5)
    const traits = [prefixOf(9), promptOf(6), prefixOf(3), promptOf(17), {}]
    const harness = new EngineHarness({ numBlocks: 26, maxNumBatchedTokens: 24, maxNumSeqs: 6, adapterBytes: 3 })
    const ids = traits.map((each, i) => harness.adapters.add(`a${i}`, { ...each, digest: `digest ${i}` }))
    const requests: (AddOptions & { readonly kindIndex: number })[] = []
    for (let i = 0; i < 150; i++) {
      const kindIndex = random.below(traits.length)
      const sampling = { maxTokens: 1 + random.below(12), promptLogprobs: random.below(4) === 0 ? 1 : null }
      const request = { id: `r${i}`, prompt: prompt(1 + random.below(20), random.below(4)), sampling, kindIndex }
      requests.push(request)
      harness.add({ ...request, adapterId: ids[kindIndex]!, priority: random.below(3), cacheSalt: ['', 'x'][random.below(2)]! })
      if (random.below(3) === 0) await harness.step()
      if (random.below(12) === 0) harness.abort(`r${random.below(i + 1)}`)
    }
    await harness.drain()
    assert.ok((harness.stats?.numPreemptions ?? 0) > 0, 'nothing was preempted')
    const finished = requests.filter(({ id }) => harness.of(id).finish?.reason === 'length')
    assert.ok(finished.length > 100)
    for (const { id, kindIndex, ...request } of finished) {
      const expected = await alone({ ...traits[kindIndex], digest: `digest ${kindIndex}` }, request)
      assert.deepEqual(harness.tokensOf(id), expected.tokenIds, id)
      assert.deepEqual(harness.of(id).promptLogprobs, expected.promptLogprobs, id)
    }
  })
})
