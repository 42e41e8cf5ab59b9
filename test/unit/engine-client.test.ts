import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Config } from '../../src/config.ts'
import { EngineClient, type EngineState } from '../../src/engine/engine-client.ts'
import type { RequestOutput } from '../../src/engine/messages.ts'
import { LorikeetError } from '../../src/errors.ts'
import { type AddOptions, newRequest, prompt } from '../support/engine-harness.ts'
import { InProcessEngines } from '../support/in-process-link.ts'

function start(restartDelaysMs: readonly number[] = [1, 1]): [EngineClient, InProcessEngines] {
  const engines = new InProcessEngines()
  return [startWith(engines, restartDelaysMs), engines]
}

function startWith(engines: InProcessEngines, restartDelaysMs: readonly number[] = [1, 1]): EngineClient {
  // The links never look at the config.
  const config = {} as Config
  return EngineClient.start({ config, threadUrl: new URL('file:///none.js'), links: engines.links, restartDelaysMs })
}

/** All outputs of one request, once it has finished. */
function submit(client: EngineClient, options: AddOptions): Promise<RequestOutput[]> {
  return new Promise((resolve) => {
    const outputs: RequestOutput[] = []
    client.submit(newRequest(options), (output) => {
      outputs.push(output)
      if (output.finish !== null) resolve(outputs)
    })
  })
}

const finishOf = (outputs: RequestOutput[]): RequestOutput['finish'] => outputs.at(-1)?.finish ?? null

function becomes(client: EngineClient, state: EngineState): Promise<void> {
  return new Promise((resolve) => {
    if (client.state === state) return resolve()
    client.onStateChange((now) => {
      if (now === state) resolve()
    })
  })
}

describe('EngineClient', () => {
  it('routes each request its own outputs, exactly one with a finish', async () => {
    const [client] = start()
    assert.equal(client.state, 'starting')
    assert.throws(
      () => client.model,
      (error: LorikeetError) => error.code === 'ENGINE_STARTING',
    )
    assert.equal((await client.ready).vocabSize, 997)
    assert.equal(client.state, 'ready')
    const all = await Promise.all(
      [1, 2, 3, 4].map((i) => submit(client, { id: `r${i}`, prompt: prompt(10, i), sampling: { maxTokens: i } })),
    )
    for (const [i, outputs] of all.entries()) {
      assert.equal(outputs.flatMap((output) => output.tokenIds).length, i + 1)
      assert.equal(outputs.filter((output) => output.finish !== null).length, 1)
      assert.ok(outputs.every((output) => output.requestId === `r${i + 1}`))
    }
    await client.shutdown(0)
  })

  it('counts requests that are on their way as waiting', async () => {
    const [client] = start()
    await client.ready
    const done = [1, 2, 3].map((i) => submit(client, { id: `r${i}`, prompt: prompt(4, i) }))
    assert.equal(client.stats().numWaiting, 3)
    await Promise.all(done)
    assert.equal(client.stats().numWaiting, 0)
    await client.shutdown(0)
  })

  it('aborts, and ignores ids that are gone', async () => {
    const [client, engines] = start()
    engines.stepDelayMs = 1
    await client.ready
    const outputs = submit(client, { id: 'a', prompt: prompt(4), sampling: { maxTokens: 200 } })
    const { requestId } = newRequest({ id: 'a', prompt: [1] })
    client.abort([requestId])
    assert.equal(finishOf(await outputs)?.reason, 'abort')
    client.abort([requestId])
    assert.equal(engines.commands.filter((command) => command.type === 'abort-requests').length, 1)
    await client.shutdown(0)
  })

  it('loads, finds, lists, replaces and unloads adapters', async () => {
    const [client] = start()
    await client.ready
    const info = await client.loadAdapter({ name: 'a', path: '/v1' }, false)
    assert.deepEqual(client.findAdapter('a'), info)
    await assert.rejects(
      client.loadAdapter({ name: 'a', path: '/v1' }, false),
      (error: LorikeetError) => error.code === 'ADAPTER_NAME_TAKEN',
    )
    await assert.rejects(
      client.loadAdapter({ name: 'b', path: '/missing' }, false),
      (error: LorikeetError) => error.code === 'ADAPTER_NOT_FOUND',
    )
    const replaced = await client.loadAdapter({ name: 'a', path: '/v2' }, true)
    assert.notEqual(replaced.id, info.id)
    assert.deepEqual(
      client.adapters().map(({ id }) => id),
      [replaced.id],
    )
    await client.unloadAdapter('a')
    assert.equal(client.findAdapter('a'), null)
    await assert.rejects(client.unloadAdapter('a'), (error: LorikeetError) => error.code === 'MODEL_NOT_FOUND')
    await client.shutdown(0)
  })

  it('ends every request and call with ENGINE_DEAD when the thread dies, then comes back with the adapters', async () => {
    const [client, engines] = start()
    engines.stepDelayMs = 1
    await client.ready
    const before = await client.loadAdapter({ name: 'a', path: '/a' }, false)
    const running = submit(client, { id: 'r', prompt: prompt(4), sampling: { maxTokens: 200 } })
    const call = client.loadAdapter({ name: 'late', path: '/late' }, false)
    engines.crash('out of memory')
    assert.equal(client.state, 'dead')
    await assert.rejects(call, (error: LorikeetError) => error.code === 'ENGINE_DEAD' && /out of memory/.test(error.message))
    const finish = finishOf(await running)
    assert.deepEqual([finish?.reason, finish?.error?.code], ['error', 'ENGINE_DEAD'])
    assert.equal(finishOf(await submit(client, { id: 'refused', prompt: [1] }))?.error?.code, 'ENGINE_DEAD')
    assert.equal(client.findAdapter('a'), null)

    await becomes(client, 'ready')
    const after = client.findAdapter('a')
    assert.ok(after !== null && after.id > before.id, 'ids are never used again')
    assert.equal(client.findAdapter('late'), null)
    const outputs = await submit(client, { id: 'again', prompt: prompt(4), adapterId: after.id })
    assert.equal(finishOf(outputs)?.reason, 'length')
    await client.shutdown(0)
  })

  it('treats a fatal event as a death and goes on without an adapter whose files are gone', async () => {
    const [client, engines] = start()
    await client.ready
    const source = { name: 'a', path: '/a' }
    await client.loadAdapter(source, false)
    source.path = '/missing'
    engines.fail(new LorikeetError('INTERNAL', { detail: 'a bug' }))
    await becomes(client, 'ready')
    assert.deepEqual(client.adapters(), [])
    assert.equal(engines.starts.length, 2)
    await client.shutdown(0)
  })

  it('gives up after its restarts, and rejects ready without any when the first start fails', async () => {
    const [client, engines] = start([1, 1])
    await client.ready
    engines.startError = new LorikeetError('MODEL_INVALID', { reason: 'gone' })
    engines.crash('first')
    while (engines.starts.length < 3 || client.state !== 'dead') await new Promise((resolve) => setTimeout(resolve, 1))
    await client.shutdown(0)

    const broken = new InProcessEngines()
    broken.startError = new LorikeetError('MODEL_INVALID', { reason: 'no config.json' })
    const other = startWith(broken)
    await assert.rejects(other.ready, (error: LorikeetError) => error.code === 'MODEL_INVALID')
    assert.equal(other.state, 'dead')
    assert.equal(broken.starts.length, 1)
  })

  it('lets running requests finish within the grace time and refuses new ones', async () => {
    const [client] = start()
    await client.ready
    const running = submit(client, { id: 'a', prompt: prompt(4), sampling: { maxTokens: 5 } })
    const done = client.shutdown(10_000)
    assert.equal(client.state, 'draining')
    assert.equal(finishOf(await submit(client, { id: 'late', prompt: [1] }))?.error?.code, 'DRAINING')
    assert.equal(finishOf(await running)?.reason, 'length')
    await done
    assert.equal(client.state, 'dead')
    assert.equal(client.shutdown(0), client.shutdown(0))
  })

  it('aborts what outlives the grace time', async () => {
    const engines = new InProcessEngines()
    engines.stepDelayMs = 5
    const client = startWith(engines)
    await client.ready
    const running = submit(client, { id: 'a', prompt: prompt(4), sampling: { maxTokens: 200 } })
    await client.shutdown(1)
    assert.equal(finishOf(await running)?.reason, 'abort')
  })

  it('keeps the others alive when one sink throws', async () => {
    const [client] = start()
    await client.ready
    const warned = new Promise((resolve) => process.once('warning', resolve))
    client.submit(newRequest({ id: 'bad', prompt: prompt(4) }), () => {
      throw new Error('client defect')
    })
    const outputs = await submit(client, { id: 'good', prompt: prompt(4) })
    assert.equal(finishOf(outputs)?.reason, 'length')
    assert.match(String(await warned), /client defect/)
    await client.shutdown(0)
  })
})
