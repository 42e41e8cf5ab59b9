import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LorikeetError } from '../../src/errors.ts'
import { startHarness } from '../support/http-harness.ts'

const COMPLETIONS = '/v1/completions'
const ask = (adapters: unknown, more: object = {}) => ({ prompt: 'x', max_tokens: 1, adapters, ...more })
const pair = [
  { name: 'pirate', weight: 0.5 },
  { name: 'robot', weight: 0.25 },
]

async function start() {
  const harness = await startHarness()
  for (const name of ['pirate', 'robot', 'cat']) await harness.engine.loadAdapter({ name, path: `/a/${name}` })
  harness.engine.loads.length = 0
  return harness
}

test('a request runs on the weighted sum of the adapters it names, made once and listed nowhere', async (t) => {
  const { post, get, engine, close } = await start()
  t.after(close)
  for (const path of [COMPLETIONS, COMPLETIONS]) assert.equal((await post(path, ask(pair))).status, 200)
  const chat = { adapters: pair, max_tokens: 1, messages: [{ role: 'user', content: 'x' }] }
  assert.equal((await post('/v1/chat/completions', chat)).status, 200)
  assert.equal(engine.loads.length, 1)
  assert.deepEqual(engine.loads[0]!.members, [
    { path: '/a/pirate', digest: 'd', weight: 0.5 },
    { path: '/a/robot', digest: 'd', weight: 0.25 },
  ])
  const name = engine.adapterName(engine.submitted[0]!.adapterId)
  assert.equal(name, 'pirate@d*0.5 + robot@d*0.25')
  const { data } = (await get('/v1/models')).json
  assert.equal(
    data.some((card: { id: string }) => card.id === name),
    false,
  )
})

test('a weight left out is 1, and one adapter of weight 1 is itself', async (t) => {
  const { post, engine, close } = await start()
  t.after(close)
  assert.equal((await post(COMPLETIONS, ask([{ name: 'cat' }]))).status, 200)
  assert.equal(engine.loads.length, 0)
  assert.equal(engine.adapterName(engine.submitted[0]!.adapterId), 'cat')
})

test('what is wrong is answered by the field', async (t) => {
  const { post, close } = await start()
  t.after(close)
  const fails = async (body: object, status: number, param: string) => {
    const answer = await post(COMPLETIONS, body)
    assert.deepEqual([answer.status, answer.json.error.param], [status, param], JSON.stringify(body))
  }
  await fails(ask('pirate'), 400, 'adapters')
  await fails(ask(['pirate']), 400, 'adapters[0]')
  await fails(ask([{ weight: 1 }]), 400, 'adapters[0].name')
  await fails(ask([{ name: 'pirate', weight: 'x' }]), 400, 'adapters[0].weight')
  await fails(ask([...pair, ...pair]), 400, 'adapters')
  await fails(ask([{ name: 'nobody', weight: 0.5 }]), 404, 'adapters')
  await fails(ask(pair, { model: 'cat' }), 400, 'adapters')
  await fails(ask(pair, { lora_path: 'cat' }), 400, 'adapters')
})

test('adapters that cannot be summed are refused by the field that names them', async (t) => {
  const onLoad = async ({ members }: { members?: unknown }) => {
    if (members !== undefined)
      throw new LorikeetError('ADAPTER_REFUSED', { name: 'm', field: 'robot', reason: 'cannot be summed' })
  }
  const { post, engine, close } = await startHarness({ onLoad })
  t.after(close)
  for (const name of ['pirate', 'robot']) await engine.loadAdapter({ name, path: `/a/${name}` })
  const answer = await post(COMPLETIONS, ask(pair))
  assert.equal(answer.status, 400)
  assert.equal(answer.json.error.param, 'adapters')
  assert.match(answer.json.error.message, /robot.*cannot be summed/)
})

test('mixtures used longest ago make room', async (t) => {
  const { post, engine, close } = await start()
  t.after(close)
  const mix = (weight: number) => post(COMPLETIONS, ask([{ name: 'pirate', weight }]))
  for (let i = 1; i <= 64; i++) assert.equal((await mix(i + 1)).status, 200)
  await mix(2)
  await mix(100)
  assert.notEqual(engine.findAdapter('pirate@d*2'), null)
  assert.equal(engine.findAdapter('pirate@d*3'), null)
  assert.notEqual(engine.findAdapter('pirate@d*100'), null)
})

test("LoRAX's merged adapters are the same sum", async (t) => {
  const { post, engine, close } = await start()
  t.after(close)
  const generate = (merged_adapters: object, more: object = {}) =>
    post('/generate', { inputs: 'x', parameters: { merged_adapters, max_new_tokens: 1, ...more } })
  const merged = { ids: ['pirate', 'robot'], weights: [0.5, 0.25] }
  assert.equal((await generate({ ...merged, merge_strategy: 'linear' })).status, 200)
  assert.equal(engine.loads.length, 1)
  assert.equal(engine.adapterName(engine.submitted[0]!.adapterId), 'pirate@d*0.5 + robot@d*0.25')
  for (const bad of [
    generate({ ...merged, merge_strategy: 'ties' }),
    generate({ ids: ['pirate'], weights: [1, 2] }),
    generate({ ids: [], weights: [] }),
    generate({ ...merged, density: 0.5 }),
    generate(merged, { adapter_id: 'cat' }),
  ]) {
    const { status } = await bad
    assert.ok(status === 422 || status === 400, String(status))
  }
})
