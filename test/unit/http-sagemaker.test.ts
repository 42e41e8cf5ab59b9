// SageMaker's routes on a scripted engine.

import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { type Harness, type HarnessOptions, startHarness } from '../support/http-harness.ts'
import { scratchFolder } from '../support/scratch-folder.ts'

const HEADER = 'X-Amzn-SageMaker-Adapter-Identifier'

async function withHarness(options: HarnessOptions, work: (harness: Harness) => Promise<void>): Promise<void> {
  const harness = await startHarness(options)
  try {
    await work(harness)
  } finally {
    await harness.close()
  }
}

function adapterFolder(): string {
  const folder = join(scratchFolder(), 'pirate')
  mkdirSync(folder)
  writeFileSync(join(folder, 'adapter_config.json'), '{}')
  return folder
}

test('/invocations answers in the dialect of its body', async () => {
  await withHarness({}, async ({ post, stream }) => {
    const chat = await post('/invocations', { messages: [{ role: 'user', content: 'Hi' }], max_tokens: 2 })
    assert.equal(chat.json.object, 'chat.completion')
    assert.match(chat.json.id, /^chatcmpl-/)
    const completion = await post('/invocations', { prompt: 'x', max_tokens: 2 })
    assert.equal(completion.json.object, 'text_completion')
    assert.match(completion.json.id, /^cmpl-/)
    const lorax = await post('/invocations', { inputs: 'x', parameters: { max_new_tokens: 2 } })
    assert.deepEqual(Object.keys(lorax.json[0]), ['generated_text'])
    const streamed = await stream('/invocations', { prompt: 'x', max_tokens: 2 })
    assert.equal(streamed.isDone, true)
    assert.ok((await post('/invocations', { messages: null, prompt: 'x', max_tokens: 1 })).json.object === 'text_completion')
  })
})

test('the header names the adapter in place of the body', async () => {
  await withHarness({}, async ({ post, engine }) => {
    for (const name of ['pirate', 'robot']) await engine.loadAdapter({ name, path: `/adapters/${name}` })
    const bodies = [
      { model: 'robot', prompt: 'x', max_tokens: 1 },
      { model: 'robot', messages: [{ role: 'user', content: 'Hi' }], max_tokens: 1 },
      { inputs: 'x', parameters: { adapter_id: 'robot', max_new_tokens: 1 } },
    ]
    for (const body of bodies) {
      assert.equal((await post('/invocations', body, { [HEADER]: 'pirate' })).status, 200)
      assert.equal(engine.adapterName(engine.submitted.at(-1)!.adapterId), 'pirate')
    }
    const unknown = await post('/invocations', bodies[0], { [HEADER]: 'nobody' })
    assert.deepEqual([unknown.status, unknown.json.error.param], [404, 'model'])
  })
})

test('/invocations says what it cannot read, in the shape of the dialect', async () => {
  await withHarness({}, async ({ post }) => {
    const embedding = await post('/invocations', { input: 'x' })
    assert.deepEqual([embedding.status, embedding.json.error.param], [400, 'input'])
    const empty = await post('/invocations', {})
    assert.deepEqual([empty.status, empty.json.error.param], [400, 'prompt'])
    const lorax = await post('/invocations', { inputs: 'x', parameters: { watermark: true } })
    assert.deepEqual([lorax.status, lorax.json.error_type], [422, 'validation'])
  })
})

test('adapters are loaded and unloaded by name', async () => {
  const src = adapterFolder()
  await withHarness({}, async ({ post, get, send }) => {
    const loaded = await post('/adapters', { name: 'org/pirate', src, pin: true })
    assert.deepEqual([loaded.status, loaded.text], [200, "Success: LoRA adapter 'org/pirate' added successfully."])
    assert.equal((await get('/v1/models/org/pirate')).json.parent, 'demo')
    const again = await post('/adapters', { name: 'org/pirate', src })
    assert.equal(again.status, 400)
    assert.match(again.json.message, /has already been loaded/)
    assert.equal(again.json.error.param, null)
    const removed = await send('DELETE', '/adapters/org/pirate')
    assert.deepEqual([removed.status, removed.text], [200, "Success: LoRA adapter 'org/pirate' removed successfully."])
    const gone = await send('DELETE', '/adapters/org%2Fpirate')
    assert.deepEqual([gone.status, gone.json.error.param], [404, 'name'])
  })
})

test('errors of loading name fields of this route', async () => {
  await withHarness({ adapters: { allowedPathPrefixes: ['/nowhere'] } }, async ({ post }) => {
    const cases = [
      [{ name: 'a' }, 400, 'src'],
      [{ src: '/nowhere/x' }, 400, 'name'],
      [{ name: 'a,b', src: '/nowhere/x' }, 400, 'name'],
      [{ name: 'a', src: 'relative' }, 400, 'src'],
      [{ name: 'a', src: '/etc' }, 400, 'src'],
      [{ name: 'a', src: '/nowhere/x' }, 404, 'src'],
    ] as const
    for (const [body, status, param] of cases) {
      const { status: actual, json } = await post('/adapters', body)
      assert.deepEqual([actual, json.error.param], [status, param], JSON.stringify(body))
      assert.doesNotMatch(json.error.message, /lora_path/)
    }
  })
})

test('without runtime loading there is no such route', async () => {
  await withHarness({ adapters: { allowRuntimeUpdating: false } }, async ({ post, send }) => {
    assert.equal((await post('/adapters', { name: 'a', src: '/x' })).status, 404)
    assert.equal((await send('DELETE', '/adapters/a')).status, 404)
  })
})

test('/ping and /invocations take the methods they should', async () => {
  await withHarness({}, async ({ get, post, send }) => {
    assert.equal((await get('/ping')).status, 200)
    assert.equal((await post('/ping', {})).status, 200)
    const wrong = await get('/invocations')
    assert.deepEqual([wrong.status, wrong.headers['allow']], [405, 'POST'])
    assert.equal((await send('GET', '/adapters/a')).headers['allow'], 'DELETE')
  })
})
