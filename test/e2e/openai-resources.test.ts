// Every call and every documented parameter of OpenAI's resources that this server has, through OpenAI's own client; and what
// it answers to those it does not have. The calls are those of openai-node's own tests of API resources.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import OpenAI, { APIError } from 'openai'
import { API_KEY, BASE_NAME, startFastServer } from '../support/client-server.ts'
import type { ServerProcess } from '../support/server-process.ts'

let server: ServerProcess
let client: OpenAI
before(async () => {
  server = await startFastServer('--served-model-name', 'gpt-3.5-turbo-instruct', 'gpt-5.4', 'gpt-4o-mini')
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: API_KEY, maxRetries: 0 })
})
after(() => server.stop())

/** A value that works, or one that is refused with a 400 about the parameter. */
type Case = readonly [name: string, value: unknown, expected: 'works' | 'refused', extra?: object]

const SHARED: readonly Case[] = [
  ['frequency_penalty', -2, 'works'],
  ['frequency_penalty', 2.1, 'refused'],
  ['logit_bias', { 403: 100, 404: -100 }, 'works'],
  // What the client's generated tests send to a mock: no token id.
  ['logit_bias', { foo: 0 }, 'refused'],
  ['n', 2, 'works', { temperature: 1 }],
  ['n', 0, 'refused'],
  ['presence_penalty', -2, 'works'],
  ['presence_penalty', -3, 'refused'],
  ['seed', 0, 'works'],
  ['seed', -9007199254740991, 'works'],
  ['seed', 'one', 'refused'],
  ['stop', '\n', 'works'],
  ['stop', ['a', 'b', 'c', 'd'], 'works'],
  ['stop', ['a', 'b', 'c', 'd', 'e'], 'refused'],
  ['stream', false, 'works'],
  // Only with stream.
  ['stream_options', { include_usage: true, include_obfuscation: true }, 'refused'],
  ['temperature', 1, 'works'],
  ['temperature', 2.1, 'refused'],
  ['top_p', 0.5, 'works'],
  ['top_p', 0, 'refused'],
  ['user', 'user-1234', 'works'],
]

const COMPLETION: readonly Case[] = [
  ...SHARED,
  ['prompt', ['This is', 'a test.'], 'works'],
  ['prompt', [1, 403, 407], 'works'],
  ['prompt', [[1, 403], [1]], 'works'],
  ['prompt', [], 'refused'],
  ['best_of', 0, 'works'],
  ['best_of', 1, 'works'],
  ['best_of', 3, 'refused'],
  ['echo', true, 'works'],
  ['logprobs', 5, 'works'],
  ['logprobs', 21, 'refused'],
  ['max_tokens', 16, 'works'],
  ['max_tokens', 0, 'refused'],
  ['suffix', 'test.', 'refused'],
]

const CHAT: readonly Case[] = [
  ...SHARED,
  ['messages', [{ role: 'developer', content: 'string', name: 'name' }], 'works'],
  ['messages', [{ role: 'user', content: [{ type: 'text', text: 'string' }] }], 'works'],
  ['messages', [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'x' } }] }], 'refused'],
  ['messages', [], 'refused'],
  ['audio', { format: 'wav', voice: 'alloy' }, 'refused'],
  ['function_call', 'none', 'works', { functions: [{ name: 'name' }] }],
  ['functions', [{ name: 'name' }], 'refused'],
  ['logprobs', true, 'works', { top_logprobs: 2 }],
  ['top_logprobs', 2, 'refused'],
  ['max_completion_tokens', 4, 'works'],
  ['max_completion_tokens', 0, 'refused'],
  ['max_tokens', 0, 'refused', { max_completion_tokens: undefined }],
  ['metadata', { foo: 'string' }, 'works'],
  ['modalities', ['text'], 'works'],
  ['modalities', ['text', 'audio'], 'refused'],
  ['moderation', { model: 'model' }, 'refused'],
  ['parallel_tool_calls', true, 'works'],
  ['prediction', { type: 'content', content: 'string' }, 'works'],
  ['prompt_cache_key', 'key', 'works'],
  ['prompt_cache_options', { mode: 'implicit' }, 'works'],
  ['prompt_cache_retention', 'in_memory', 'works'],
  ['reasoning_effort', 'none', 'works'],
  ['response_format', { type: 'text' }, 'works'],
  ['response_format', { type: 'nonsense' }, 'refused'],
  ['safety_identifier', 'user-1234', 'works'],
  ['service_tier', 'auto', 'works'],
  ['store', true, 'works'],
  ['tool_choice', 'none', 'works', { tools: [{ type: 'function', function: { name: 'name' } }] }],
  ['tool_choice', 'required', 'refused'],
  ['verbosity', 'low', 'works'],
  ['web_search_options', { search_context_size: 'low' }, 'refused'],
]

/** Runs one case with `create`, which gets parameters on top of the required ones and answers the number of choices. */
async function check([name, value, expected, extra]: Case, create: (parameters: object) => Promise<number>): Promise<void> {
  const call = create({ ...extra, [name]: value })
  if (expected === 'works') {
    assert.ok((await call) >= 1)
    return
  }
  await assert.rejects(call, (error) => {
    assert.ok(error instanceof APIError)
    assert.equal(error.status, 400)
    assert.ok(error.param?.startsWith(name), `param is ${error.param}`)
    return true
  })
}

const titleOf = ([name, value, expected]: Case) =>
  `${name} ${JSON.stringify(value)} ${expected === 'works' ? 'works' : 'is refused'}`

describe('completions', () => {
  const create = async (parameters: object) => {
    const body = { model: 'gpt-3.5-turbo-instruct', prompt: 'This is a test.', max_tokens: 2, ...parameters }
    return (await client.completions.create(body as OpenAI.CompletionCreateParamsNonStreaming)).choices.length
  }

  test('create: required parameters, raw and parsed', async () => {
    const promise = client.completions.create({ model: 'gpt-3.5-turbo-instruct', prompt: 'This is a test.' })
    const raw = await promise.asResponse()
    assert.ok(raw instanceof Response)
    const { data, response, request_id: id } = await promise.withResponse()
    assert.equal(data, await promise)
    assert.equal(response, raw)
    assert.equal(id, raw.headers.get('x-request-id'))
    // OpenAI's default limit; a drawn end-of-sequence token may come earlier.
    assert.ok(data.usage !== undefined && data.usage.completion_tokens >= 1 && data.usage.completion_tokens <= 16)
  })

  for (const item of COMPLETION) test(`create: ${titleOf(item)}`, () => check(item, create))

  test('create: streamed, with usage and no obfuscation', async () => {
    const stream = await client.completions.create({
      ...{ model: 'gpt-3.5-turbo-instruct', prompt: 'This is a test.', max_tokens: 3, temperature: 0 },
      stream: true,
      stream_options: { include_usage: true, include_obfuscation: true },
    })
    const chunks = []
    for await (const chunk of stream) chunks.push(chunk)
    assert.equal(chunks.at(-1)?.usage?.completion_tokens, 3)
    assert.deepEqual(chunks.at(-1)?.choices, [])
  })
})

describe('chat.completions', () => {
  const create = async (parameters: object) => {
    const body = {
      model: 'gpt-5.4',
      messages: [{ role: 'developer', content: 'string' }],
      max_completion_tokens: 2,
      ...parameters,
    }
    return (await client.chat.completions.create(body as OpenAI.ChatCompletionCreateParamsNonStreaming)).choices.length
  }

  test('create: required parameters, raw and parsed', async () => {
    const promise = client.chat.completions.create({ model: 'gpt-5.4', messages: [{ role: 'developer', content: 'string' }] })
    const raw = await promise.asResponse()
    const { data, response } = await promise.withResponse()
    assert.equal(response, raw)
    assert.equal(data.choices[0]?.message.role, 'assistant')
    assert.equal(data.choices[0]?.message.refusal, null)
  })

  for (const item of CHAT) test(`create: ${titleOf(item)}`, () => check(item, create))
})

describe('models', () => {
  test('list and retrieve', async () => {
    const listed = await client.models.list().withResponse()
    assert.ok(listed.response instanceof Response)
    const ids = listed.data.data.map(({ id }) => id)
    assert.deepEqual(ids, [BASE_NAME, 'gpt-3.5-turbo-instruct', 'gpt-5.4', 'gpt-4o-mini', 'pirate'])
    assert.equal((await client.models.retrieve('gpt-4o-mini')).object, 'model')
  })
})

describe('not served', () => {
  const calls: readonly (readonly [title: string, status: number, call: () => PromiseLike<unknown>])[] = [
    ['models.delete: adapters have a route of their own', 405, () => client.models.delete('pirate')],
    ['chat.completions.retrieve: nothing is stored', 404, () => client.chat.completions.retrieve('completion_id')],
    ['chat.completions.update', 404, () => client.chat.completions.update('completion_id', { metadata: {} })],
    ['chat.completions.list', 405, () => client.chat.completions.list()],
    ['chat.completions.delete', 404, () => client.chat.completions.delete('completion_id')],
    ['chat.completions.messages.list', 404, () => client.chat.completions.messages.list('completion_id')],
    ['embeddings.create', 404, () => client.embeddings.create({ model: 'gpt-5.4', input: 'x' })],
    ['responses.create', 404, () => client.responses.create({ model: 'gpt-5.4', input: 'x' })],
    ['moderations.create', 404, () => client.moderations.create({ input: 'x' })],
    ['files.list', 404, () => client.files.list()],
    ['batches.list', 404, () => client.batches.list()],
    ['fineTuning.jobs.list', 404, () => client.fineTuning.jobs.list()],
    ['images.generate', 404, () => client.images.generate({ prompt: 'x' })],
    ['audio.speech.create', 404, () => client.audio.speech.create({ input: 'x', model: 'x', voice: 'alloy' })],
  ]
  for (const [title, status, call] of calls) {
    test(`${title} (${status})`, async () => {
      await assert.rejects(Promise.resolve().then(call), (error) => {
        assert.ok(error instanceof APIError)
        assert.equal(error.status, status)
        assert.equal(error.type, status === 404 ? 'Not Found' : 'Method Not Allowed')
        return true
      })
    })
  }
})
