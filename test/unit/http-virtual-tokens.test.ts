// What clients see of an adapter's virtual tokens: the context limit, and nothing else.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { type Harness, startHarness } from '../support/http-harness.ts'

const NUM_VIRTUAL = 100
const MAX_MODEL_LEN = 512

let harness: Harness
before(async () => {
  harness = await startHarness({ numVirtualTokens: NUM_VIRTUAL, maxModelLen: MAX_MODEL_LEN })
  await harness.engine.loadAdapter({ name: 'rain', path: '/adapters/rain' })
})
after(() => harness.close())

const ids = (length: number): number[] => Array.from({ length }, () => 5)
const complete = (model: string, length: number, body: object = {}) =>
  harness.post('/v1/completions', { model, prompt: ids(length), ...body })

test('prompt and completion share the context with the virtual tokens', async () => {
  assert.equal((await complete('rain', 400, { max_tokens: 12 })).status, 200)
  const tooLong = await complete('rain', 400, { max_tokens: 13 })
  assert.equal(tooLong.status, 400)
  assert.equal(tooLong.json.error.param, 'prompt')
  assert.match(
    tooLong.json.error.message,
    /512 tokens.*513 tokens \(400 in the prompt, 13 in the completion, 100 virtual tokens/,
  )
  assert.equal((await complete('rain', 412, { max_tokens: 1 })).status, 400)
  assert.equal((await complete('demo', 412, { max_tokens: 1 })).status, 200)
})

test('an absent limit ends where the context does', async () => {
  const chat = { model: 'rain', messages: [{ role: 'user', content: 'Hi' }] }
  assert.equal((await harness.post('/v1/chat/completions', chat)).status, 200)
  const { promptTokenIds, sampling } = harness.engine.submitted.at(-1)!
  assert.equal(sampling.maxTokens, MAX_MODEL_LEN - NUM_VIRTUAL - promptTokenIds.length)
})

test('a prompt truncated to the context leaves room for the virtual tokens', async () => {
  assert.equal((await complete('rain', 500, { max_tokens: 10, truncate_prompt_tokens: -1 })).status, 200)
  assert.equal(harness.engine.submitted.at(-1)!.promptTokenIds.length, MAX_MODEL_LEN - NUM_VIRTUAL - 10)
})

test('usage and the prompt handed to the engine are without them', async () => {
  const { json } = await complete('rain', 7, { max_tokens: 3 })
  assert.equal(json.usage.prompt_tokens, 7)
  assert.deepEqual([...harness.engine.submitted.at(-1)!.promptTokenIds], ids(7))
})

test('the card of the adapter tells what is left of the context', async () => {
  const card = async (name: string) => (await harness.get(`/v1/models/${name}`)).json.max_model_len
  assert.equal(await card('rain'), MAX_MODEL_LEN - NUM_VIRTUAL)
  assert.equal(await card('demo'), MAX_MODEL_LEN)
})
