import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Backend } from '../../src/backend/backend.ts'
import type { AdapterId } from '../../src/core/ids.ts'
import type { SamplingParams } from '../../src/core/sampling-params.ts'
import { LorikeetError } from '../../src/errors.ts'
import { type AddOptions, EngineHarness, prompt, randomSource } from '../support/engine-harness.ts'

const SAMPLED: Partial<SamplingParams> = { temperature: 1, seed: 11, maxTokens: 24 }

describe('Engine', () => {
  it('runs one request to its length', async () => {
    const harness = new EngineHarness()
    const heard = await harness.run({ id: 'a', prompt: prompt(10), sampling: { maxTokens: 5 } })
    assert.equal(heard.tokenIds.length, 5)
    assert.equal(heard.finish?.reason, 'length')
    assert.equal(heard.finish?.metrics.numPromptTokens, 10)
    assert.equal(heard.finish?.metrics.numOutputTokens, 5)
    assert.equal(harness.stats?.numUsedBlocks, 0)
    assert.equal(harness.stats?.numRunning, 0)
  })

  it('gives each request of a mixed batch what it gets alone', async () => {
    const cases: AddOptions[] = []
    for (let i = 0; i < 12; i++) {
      cases.push({ id: `r${i}`, prompt: prompt(3 + 5 * i, i), sampling: i % 2 === 0 ? {} : { ...SAMPLED, seed: i } })
    }
    const adapterOf = (ids: AdapterId[], i: number): AdapterId | null => ids[i % 4] ?? null
    const alone: number[][] = []
    for (const [i, options] of cases.entries()) {
      const harness = new EngineHarness({ enablePrefixCaching: false })
      const ids = ['x', 'y', 'z'].map((name) => harness.adapters.add(name))
      alone.push((await harness.run({ ...options, adapterId: adapterOf(ids, i) })).tokenIds)
    }
    const harness = new EngineHarness({ maxNumBatchedTokens: 17, numBlocks: 400 })
    const ids = ['x', 'y', 'z'].map((name) => harness.adapters.add(name))
    for (const [i, options] of cases.entries()) harness.add({ ...options, adapterId: adapterOf(ids, i) })
    await harness.drain()
    for (const [i, options] of cases.entries()) assert.deepEqual(harness.tokensOf(options.id), alone[i], options.id)
  })

  it('gives a preempted request the tokens of an uninterrupted one', async () => {
    for (const sampling of [{ maxTokens: 24 }, SAMPLED, { ...SAMPLED, repetitionPenalty: 1.3, frequencyPenalty: 0.5 }]) {
      const cases = [0, 1, 2, 3].map((i) => ({ id: `r${i}`, prompt: prompt(9, i), sampling }))
      const roomy = new EngineHarness({ numBlocks: 200 })
      const tight = new EngineHarness({ numBlocks: 12 })
      for (const harness of [roomy, tight]) {
        for (const options of cases) harness.add(options)
        await harness.drain()
      }
      assert.equal(roomy.stats?.numPreemptions, 0)
      assert.ok((tight.stats?.numPreemptions ?? 0) > 0, 'nothing was preempted')
      for (const { id } of cases) assert.deepEqual(tight.tokensOf(id), roomy.tokensOf(id))
    }
  })

  it('draws the seed of a request without one once, so that preemption cannot change its text', async () => {
    const cases = [0, 1, 2, 3].map((i) => ({ id: `r${i}`, prompt: prompt(9, i), sampling: { ...SAMPLED, seed: null } }))
    const roomy = new EngineHarness({ numBlocks: 200 })
    const tight = new EngineHarness({ numBlocks: 12 })
    for (const harness of [roomy, tight]) {
      for (const options of cases) harness.add(options)
      await harness.drain()
    }
    for (const { id } of cases) assert.deepEqual(tight.tokensOf(id), roomy.tokensOf(id))
  })

  it('finishes 2,000 mixed requests in a pool of 24 blocks', async () => {
    const random = randomSource(5)
    const harness = new EngineHarness({
      numBlocks: 24,
      maxNumSeqs: 8,
      maxNumBatchedTokens: 32,
      adapterBytes: 2,
      maxModelLen: 64,
    })
    const ids = ['x', 'y', 'z', 'w'].map((name) => harness.adapters.add(name))
    for (let i = 0; i < 2000; i++) {
      harness.add({
        id: `r${i}`,
        prompt: prompt(1 + random.below(30), random.below(5)),
        adapterId: random.below(2) === 0 ? null : ids[random.below(4)]!,
        sampling: { maxTokens: 1 + random.below(20), temperature: random.below(2) },
        priority: random.below(3),
      })
    }
    await harness.drain(50_000)
    for (const [id, heard] of harness.heard) {
      assert.equal(heard.finish?.reason, 'length', id)
      assert.equal(heard.tokenIds.length, heard.finish.metrics.numOutputTokens)
    }
    assert.ok((harness.stats?.numPreemptions ?? 0) > 0)
    assert.equal(harness.stats?.numUsedBlocks, 0)
    assert.equal(harness.adapters.numPins(), 0)
    assert.equal(harness.adapters.numHolders(), 0)
  })

  it('leaves nothing behind after aborts at random points', async () => {
    const random = randomSource(9)
    const harness = new EngineHarness({ numBlocks: 30, maxNumBatchedTokens: 16, adapterBytes: 1, maxModelLen: 100 })
    const ids = ['x', 'y'].map((name) => harness.adapters.add(name))
    const open: string[] = []
    for (let i = 0; i < 400; i++) {
      const id = `r${i}`
      harness.add({ id, prompt: prompt(1 + random.below(40), i), adapterId: ids[random.below(3)] ?? null })
      open.push(id)
      if (random.below(2) === 0) await harness.step()
      if (random.below(3) > 0) harness.abort(open.splice(random.below(open.length), 1)[0]!)
    }
    await harness.step()
    harness.abort(...open)
    await harness.step()
    assert.equal(harness.engine.isIdle, true)
    assert.equal(harness.stats?.numUsedBlocks, 0)
    assert.equal(harness.stats?.numRunning, 0)
    assert.equal(harness.stats?.numWaiting, 0)
    assert.equal(harness.adapters.numPins(), 0)
    assert.equal(harness.adapters.numHolders(), 0)
    for (const [id, heard] of harness.heard) assert.ok(heard.finish, id)
  })

  it('aborts a running, a waiting and an adapter-bound request within one step', async () => {
    const harness = new EngineHarness({ maxNumSeqs: 1 })
    const slow = harness.adapters.add('slow')
    harness.adapters.dropFromHost(slow)
    harness.add({ id: 'running', prompt: prompt(5), sampling: { maxTokens: 100 } })
    harness.add({ id: 'waiting', prompt: prompt(5) })
    harness.add({ id: 'loading', prompt: prompt(5), adapterId: slow })
    await harness.step()
    assert.equal(harness.stats?.numRunning, 1)
    harness.abort('running', 'waiting', 'loading')
    await harness.step()
    for (const id of ['running', 'waiting', 'loading']) assert.equal(harness.of(id).finish?.reason, 'abort')
    assert.equal(harness.stats?.numUsedBlocks, 0)
    assert.equal(harness.adapters.numHolders(), 0)
  })

  it('stops at EOS, at stop tokens and at the context limit', async () => {
    const free = await new EngineHarness().run({ id: 'a', prompt: prompt(8) })
    const third = free.tokenIds[2]!
    assert.equal(free.tokenIds.indexOf(third), 2, 'the case needs distinct tokens')
    const options = (sampling: Partial<SamplingParams>): AddOptions => ({ id: 'a', prompt: prompt(8), sampling })

    const eos = await new EngineHarness().run(options({ eosTokenIds: [third], ignoreEos: false }))
    assert.deepEqual(eos.tokenIds, free.tokenIds.slice(0, 3))
    assert.deepEqual([eos.finish?.reason, eos.finish?.stopTokenId], ['stop', null])

    const ignored = await new EngineHarness().run(options({ eosTokenIds: [third], ignoreEos: true }))
    assert.deepEqual(ignored.tokenIds, free.tokenIds)

    const stop = await new EngineHarness().run(options({ stopTokenIds: [third] }))
    assert.deepEqual([stop.finish?.reason, stop.finish?.stopTokenId], ['stop', third])

    const masked = await new EngineHarness().run(options({ stopTokenIds: [third], minTokens: 5 }))
    assert.equal(masked.tokenIds.slice(0, 5).includes(third), false)
    assert.ok(masked.tokenIds.length >= 5)

    const limited = await new EngineHarness({ maxModelLen: 12 }).run(options({}))
    assert.deepEqual([limited.tokenIds.length, limited.finish?.reason], [4, 'length'])
  })

  it('gives the same output whole, chunked, and from the prefix cache', async () => {
    const options = { prompt: prompt(50), sampling: { maxTokens: 8, logprobs: 2 } }
    const whole = await new EngineHarness({ enablePrefixCaching: false }).run({ ...options, id: 'a' })
    const chunked = await new EngineHarness({ maxNumSeqs: 3, maxNumBatchedTokens: 7 }).run({ ...options, id: 'a' })
    assert.deepEqual(chunked.tokenIds, whole.tokenIds)
    const harness = new EngineHarness()
    await harness.run({ ...options, id: 'a' })
    const reused = await harness.run({ ...options, id: 'b' })
    assert.equal(reused.finish?.metrics.numCachedTokens, 48)
    assert.equal(harness.stats?.numPrefixHitTokens, 48)
    assert.deepEqual(reused.tokenIds, whole.tokenIds)
    assert.deepEqual(reused.logprobs, whole.logprobs)
  })

  it('isolates the prefix cache by adapter weights and salt, not by name', async () => {
    const harness = new EngineHarness({ numBlocks: 200 })
    const [a, twin, other, headOnly] = [
      harness.adapters.add('a', { digest: 'w' }),
      harness.adapters.add('twin', { digest: 'w' }),
      harness.adapters.add('other', { digest: 'v' }),
      harness.adapters.add('head-only', { digest: 'h', kvDigest: '' }),
    ]
    const cached = async (id: string, adapterId: AdapterId | null, cacheSalt = ''): Promise<number | undefined> =>
      (await harness.run({ id, prompt: prompt(21), adapterId, cacheSalt })).finish?.metrics.numCachedTokens
    assert.equal(await cached('1', a!), 0)
    assert.equal(await cached('2', twin!), 20)
    assert.equal(await cached('3', other!), 0)
    assert.equal(await cached('4', null), 0)
    assert.equal(await cached('5', headOnly!), 20)
    assert.equal(await cached('6', null, 'salt'), 0)
    assert.equal(await cached('7', null, 'salt'), 20)
    assert.notDeepEqual(harness.tokensOf('1'), harness.tokensOf('3'))
    assert.notDeepEqual(harness.tokensOf('4'), harness.tokensOf('5'))
  })

  it('runs an activated adapter from the last invocation on, and the base where there is none', async () => {
    const invocationTokenIds = [5, 6]
    const ids = [...prompt(17, 1, 4), 5, 6, ...prompt(10, 2, 4), 5, 6, 1, 2]
    const build = (): [EngineHarness, AdapterId] => {
      const harness = new EngineHarness({ numBlocks: 200 })
      return [harness, harness.adapters.add('alora', { invocationTokenIds })]
    }
    const [alone, adapterId] = build()
    const expected = (await alone.run({ id: 'a', prompt: ids, adapterId })).tokenIds
    const [shared, sameId] = build()
    await shared.run({ id: 'base', prompt: ids })
    const heard = await shared.run({ id: 'a', prompt: ids, adapterId: sameId })
    assert.equal(heard.finish?.metrics.numCachedTokens, 28, 'whole base blocks before position 29')
    assert.deepEqual(heard.tokenIds, expected)
    assert.notDeepEqual(expected, shared.tokensOf('base'))
    const inactive = await shared.run({ id: 'b', prompt: ids.slice(0, 16), adapterId: sameId })
    const base = await shared.run({ id: 'c', prompt: ids.slice(0, 16) })
    assert.deepEqual(inactive.tokenIds, base.tokenIds)
    assert.equal(shared.adapters.numHolders(), 0)
  })

  it('scores the prompt alone with max tokens 0, in chunks, past the prefix cache and after preemption', async () => {
    const sampling = { maxTokens: 0, promptLogprobs: 3 }
    const harness = new EngineHarness({ maxNumBatchedTokens: 16 })
    await harness.run({ id: 'warm', prompt: prompt(30) })
    const heard = await harness.run({ id: 'a', prompt: prompt(30), sampling })
    assert.deepEqual([heard.tokenIds.length, heard.finish?.reason], [0, 'length'])
    assert.equal(heard.finish?.metrics.numCachedTokens, 0)
    assert.deepEqual(
      heard.promptLogprobs?.map((entry) => entry.tokenId),
      prompt(30).slice(1),
    )
    for (const { topTokenIds, topLogprobs, rank } of heard.promptLogprobs ?? []) {
      assert.equal(topTokenIds.length, 3)
      assert.ok(topLogprobs[0]! >= topLogprobs[1]! && rank >= 1)
    }
    const tight = new EngineHarness({ numBlocks: 10, maxNumBatchedTokens: 16 })
    tight.add({ id: 'first', prompt: prompt(7, 2), sampling: { maxTokens: 20 } })
    tight.add({ id: 'a', prompt: prompt(30), sampling })
    await tight.drain()
    assert.deepEqual(tight.of('a').promptLogprobs, heard.promptLogprobs)
    const single = await harness.run({ id: 'one', prompt: [3], sampling })
    assert.deepEqual(single.promptLogprobs, [])
  })

  it('sends prompt logprobs once, with the first output', async () => {
    const harness = new EngineHarness()
    await harness.run({ id: 'a', prompt: prompt(10), sampling: { maxTokens: 3, promptLogprobs: 0, logprobs: 0 } })
    const outputs = harness.events.flatMap((event) => (event.type === 'step' ? event.outputs : []))
    assert.deepEqual(
      outputs.map((output) => output.promptLogprobs?.length ?? null),
      [9, null, null],
    )
    assert.deepEqual(
      outputs.map((output) => output.logprobs?.length),
      [1, 1, 1],
    )
  })

  it('refuses with a code what can never run', async () => {
    const harness = new EngineHarness({ numBlocks: 8, maxModelLen: 60 })
    const codeOf = async (options: AddOptions): Promise<string | undefined> => (await harness.run(options)).finish?.error?.code
    assert.equal(await codeOf({ id: 'long', prompt: prompt(61) }), 'CONTEXT_LENGTH_EXCEEDED')
    assert.equal(await codeOf({ id: 'large', prompt: prompt(20), sampling: { maxTokens: 30 } }), 'REQUEST_TOO_LARGE')
    assert.equal(await codeOf({ id: 'empty', prompt: [] }), 'FIELD_INVALID')
    assert.equal(await codeOf({ id: 'gone', prompt: [1], adapterId: 99 as AdapterId }), 'MODEL_NOT_FOUND')
    assert.equal(await codeOf({ id: 'fits', prompt: prompt(20), sampling: { maxTokens: 13 } }), undefined)
  })

  it('ends the requests of a failed step with its error and goes on', async () => {
    let numFailures = 1
    const wrapBackend = (backend: Backend): Backend =>
      Object.create(backend, {
        vocabSize: { value: backend.vocabSize },
        capacity: { value: backend.capacity },
        name: { value: 'flaky' },
        lastNativeMs: { value: 0 },
        loadAdapter: { value: backend.loadAdapter.bind(backend) },
        execute: {
          value: (plan: Parameters<Backend['execute']>[0]) => {
            if (numFailures-- > 0) return Promise.reject(new Error('device lost'))
            return backend.execute(plan)
          },
        },
      }) as Backend
    const harness = new EngineHarness({ wrapBackend, maxNumSeqs: 1 })
    harness.add({ id: 'hit', prompt: prompt(5) })
    harness.add({ id: 'spared', prompt: prompt(5) })
    await harness.drain()
    assert.equal(harness.of('hit').finish?.error?.code, 'BACKEND_FAILED')
    assert.match(String(harness.of('hit').finish?.error?.params['detail']), /device lost/)
    assert.equal(harness.of('spared').finish?.reason, 'length')

    numFailures = 1000
    for (const id of ['x', 'y', 'z']) harness.add({ id, prompt: prompt(5) })
    await assert.rejects(harness.drain(), (error: LorikeetError) => error.code === 'BACKEND_FAILED')
    for (const id of ['x', 'y', 'z']) assert.equal(harness.of(id).finish?.error?.code, 'BACKEND_FAILED')
  })

  it('ends requests whose adapter cannot be loaded again', async () => {
    const harness = new EngineHarness()
    const id = harness.adapters.add('a')
    harness.adapters.dropFromHost(id)
    harness.add({ id: 'r', prompt: prompt(5), adapterId: id })
    assert.equal(await harness.step(), false)
    assert.equal(harness.stats?.numWaitingForAdapter, 1)
    assert.deepEqual(harness.stats?.waitingAdapters, ['a'])
    harness.adapters.finishLoad(id, new LorikeetError('ADAPTER_NOT_FOUND', { name: 'a', path: '/gone' }))
    await harness.step()
    assert.equal(harness.of('r').finish?.error?.code, 'ADAPTER_NOT_FOUND')
    assert.equal(harness.stats?.numWaitingForAdapter, 0)
    assert.equal(harness.adapters.numHolders(), 0)
  })

  it('keeps stepping the others while an adapter loads', async () => {
    const harness = new EngineHarness()
    const id = harness.adapters.add('slow')
    harness.adapters.dropFromHost(id)
    harness.add({ id: 'slow', prompt: prompt(5), adapterId: id })
    harness.add({ id: 'base', prompt: prompt(5), sampling: { maxTokens: 8 } })
    for (let i = 0; i < 8; i++) assert.equal(await harness.step(), true)
    assert.equal(harness.of('base').finish?.reason, 'length')
    harness.adapters.finishLoad(id)
    await harness.drain()
    assert.equal(harness.of('slow').finish?.reason, 'length')
  })

  it('answers adapter calls, list first', async () => {
    const harness = new EngineHarness()
    harness.send({ type: 'load-adapter', callId: 1, adapter: { name: 'a', path: '/a' }, replace: false })
    harness.send({ type: 'load-adapter', callId: 2, adapter: { name: 'b', path: '/missing' }, replace: false })
    await harness.step()
    await new Promise((resolve) => setImmediate(resolve))
    const calls = harness.events.filter((event) => event.type !== 'step')
    assert.deepEqual(
      calls.map((event) => event.type),
      ['adapters', 'reply', 'failed-call'],
    )
    harness.send({ type: 'unload-adapter', callId: 3, name: 'a' })
    await harness.step()
    await new Promise((resolve) => setImmediate(resolve))
    assert.deepEqual(
      harness.events.slice(-2).map((event) => event.type),
      ['adapters', 'reply'],
    )
  })

  it('finishes a request on the generation it started with', async () => {
    const alone = new EngineHarness()
    const expected = (await alone.run({ id: 'r', prompt: prompt(9), adapterId: alone.adapters.add('a', { digest: '/v1' }) }))
      .tokenIds
    const harness = new EngineHarness()
    const v1 = harness.adapters.add('a', { digest: '/v1' })
    harness.add({ id: 'r', prompt: prompt(9), adapterId: v1 })
    await harness.step()
    harness.send({ type: 'load-adapter', callId: 1, adapter: { name: 'a', path: '/v2' }, replace: true })
    await harness.drain()
    assert.deepEqual(harness.tokensOf('r'), expected)
    assert.equal(harness.adapters.isKnown(v1), false)
  })

  it('runs a request whose generation was replaced while it was on its way on the new one', async () => {
    const alone = new EngineHarness()
    const expected = await alone.run({ id: 'r', prompt: prompt(9), adapterId: alone.adapters.add('a', { digest: '/v2' }) })
    const harness = new EngineHarness()
    const v1 = harness.adapters.add('a', { digest: '/v1' })
    harness.send({ type: 'load-adapter', callId: 1, adapter: { name: 'a', path: '/v2' }, replace: true })
    await harness.step()
    await new Promise((resolve) => setImmediate(resolve))
    assert.deepEqual((await harness.run({ id: 'r', prompt: prompt(9), adapterId: v1 })).tokenIds, expected.tokenIds)
  })

  it('aborts everything on shutdown', async () => {
    const harness = new EngineHarness()
    harness.add({ id: 'a', prompt: prompt(5) })
    await harness.step()
    harness.send({ type: 'shutdown' })
    await harness.step()
    assert.equal(harness.of('a').finish?.reason, 'abort')
    assert.equal(harness.engine.isShutDown, true)
  })
})
