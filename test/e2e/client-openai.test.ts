// OpenAI's own JavaScript client as a black-box client.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import OpenAI, { AuthenticationError, BadRequestError, NotFoundError } from 'openai'
import { API_KEY, abortedCall, BASE, PIRATE, startClientServer } from '../support/client-server.ts'
import type { ServerProcess } from '../support/server-process.ts'

let server: ServerProcess
let client: OpenAI

before(async () => {
  server = await startClientServer()
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: API_KEY, maxRetries: 0 })
})
after(() => server.stop())

const greedy = { temperature: 0, max_tokens: PIRATE.tokenIds.length }

test('create', async () => {
  const whole = await client.completions.create({ model: 'stories', prompt: BASE.prompt, temperature: 0, max_tokens: 195 })
  assert.equal(whole.choices[0]!.text, BASE.text)
  const pirate = await client.completions.create({ model: 'pirate', prompt: PIRATE.prompt, ...greedy })
  assert.equal(pirate.choices[0]!.text, PIRATE.text)
  assert.equal(pirate.model, 'pirate')
  assert.equal(pirate.usage!.completion_tokens, 48)
  assert.ok(pirate._request_id)
})

test('stream', async () => {
  const stream = await client.completions.create({ model: 'pirate', prompt: PIRATE.prompt, ...greedy, stream: true })
  let text = ''
  for await (const chunk of stream) text += chunk.choices[0]!.text
  assert.equal(text, PIRATE.text)
})

test('chat, whole and streamed with usage', async () => {
  const messages = [{ role: 'user' as const, content: PIRATE.prompt }]
  const body = { model: 'pirate', messages, ...greedy }
  // The chat route adds no special tokens: a template writes its own.
  const whole = await client.chat.completions.create(body)
  const stream = client.chat.completions.stream({ ...body, stream_options: { include_usage: true } })
  const final = await stream.finalChatCompletion()
  assert.equal(final.choices[0]!.message.content, whole.choices[0]!.message.content)
  assert.equal(final.choices[0]!.finish_reason, 'length')
  assert.deepEqual((await stream.totalUsage()).completion_tokens, 48)
})

test('logprobs', async () => {
  const answer = await client.completions.create({
    model: 'stories',
    prompt: 'One day',
    temperature: 0,
    max_tokens: 5,
    logprobs: 3,
  })
  const { tokens, token_logprobs: values, top_logprobs: top, text_offset: offsets } = answer.choices[0]!.logprobs!
  assert.equal(tokens!.join(''), answer.choices[0]!.text)
  tokens!.forEach((token, i) => {
    // Greedy: the token is the best of its alternatives.
    assert.equal(values![i], Math.max(...Object.values(top![i]!)))
    assert.equal(top![i]![token], values![i])
    assert.equal(Object.keys(top![i]!).length, 3)
    assert.equal(answer.choices[0]!.text.startsWith(token, offsets![i]), true)
  })
  const chat = await client.chat.completions.create({
    model: 'stories',
    messages: [{ role: 'user', content: 'One day' }],
    max_tokens: 2,
    logprobs: true,
    top_logprobs: 2,
  })
  assert.equal(chat.choices[0]!.logprobs!.content!.length, 2)
  assert.equal(chat.choices[0]!.logprobs!.content![0]!.top_logprobs.length, 2)
})

test('scoring a prompt gives the log probabilities its greedy continuation had', async () => {
  const { choices } = await client.completions.create({
    model: 'pirate',
    prompt: 'One day',
    temperature: 0,
    max_tokens: 8,
    logprobs: 1,
  })
  const generated = choices[0]!
  const scored = await client.completions.create({
    model: 'pirate',
    prompt: `One day${generated.text}`,
    echo: true,
    max_tokens: 0,
    logprobs: 1,
  })
  const values = scored.choices[0]!.logprobs!.token_logprobs!.slice(-8)
  values.forEach((value, i) => {
    assert.ok(Math.abs(value - generated.logprobs!.token_logprobs![i]!) < 1e-4)
  })
})

test('a seed repeats its text, whatever runs beside it', async () => {
  const body = { model: 'stories', prompt: 'Once upon a time', temperature: 1, max_tokens: 24, seed: 11 }
  const alone = await client.completions.create(body)
  const [again] = await Promise.all([
    client.completions.create(body),
    client.completions.create({ ...body, model: 'pirate' }),
    client.completions.create({ ...body, seed: 12, n: 3 }),
  ])
  assert.equal(again.choices[0]!.text, alone.choices[0]!.text)
  const other = await client.completions.create({ ...body, seed: 12 })
  assert.notEqual(other.choices[0]!.text, alone.choices[0]!.text)
})

test('abort', async () => {
  const stream = await client.completions.create({ model: 'stories', prompt: 'One day', max_tokens: 400, stream: true })
  for await (const _ of stream) break
  stream.controller.abort()
  assert.ok((await abortedCall(server)) < 400)
})

test('list and retrieve', async () => {
  const models = []
  for await (const model of client.models.list()) models.push(model.id)
  assert.deepEqual(models, ['stories', 'pirate'])
  assert.equal((await client.models.retrieve('pirate')).id, 'pirate')
  await assert.rejects(client.models.retrieve('nobody'), NotFoundError)
})

test('a bad model and a bad key', async () => {
  const body = { model: 'nobody', prompt: 'x' }
  await assert.rejects(client.completions.create(body), (error) => {
    assert.ok(error instanceof NotFoundError)
    assert.equal(error.param, 'model')
    assert.match(error.message, /The model `nobody` does not exist/)
    return true
  })
  const stranger = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'wrong', maxRetries: 0 })
  await assert.rejects(stranger.completions.create({ ...body, model: 'stories' }), AuthenticationError)
  await assert.rejects(client.completions.create({ ...body, model: 'stories', temperature: 9 }), BadRequestError)
})
