import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { CHAT_TEMPLATE, demoText, demoTokenizer, type Harness, startHarness } from '../support/http-harness.ts'

const STORY = demoTokenizer().encode('One day, she saw a big red ball. It was fun', false)
const URL = '/v1/chat/completions'
const messages = [{ role: 'user', content: 'Tell me' }]
let harness: Harness

before(async () => {
  harness = await startHarness({ script: () => [...STORY, 2] })
})
after(() => harness.close())

const lastPrompt = () => demoTokenizer().decode(harness.engine.submitted.at(-1)!.promptTokenIds, { skipSpecialTokens: false })

test('a chat answer has the shape of the API, and uses the rest of the context', async () => {
  const answer = await harness.post(URL, { messages })
  assert.equal(answer.status, 200)
  const { id, created, system_fingerprint: _, usage, ...rest } = answer.json
  assert.match(id, /^chatcmpl-[0-9a-f]{32}$/)
  assert.ok(Number.isInteger(created))
  const absent = { refusal: null, annotations: null, audio: null, function_call: null, reasoning: null }
  assert.deepEqual(rest, {
    object: 'chat.completion',
    model: 'demo',
    choices: [
      {
        index: 0,
        message: { role: 'assistant', content: 'One day, she saw a big red ball. It was fun', ...absent },
        logprobs: null,
        finish_reason: 'stop',
        stop_reason: null,
        token_ids: null,
      },
    ],
    service_tier: null,
    kv_transfer_params: null,
    prompt_logprobs: null,
    prompt_token_ids: null,
  })
  const request = harness.engine.submitted.at(-1)!
  assert.equal(request.sampling.maxTokens, 512 - request.promptTokenIds.length)
  assert.equal(usage.prompt_tokens, request.promptTokenIds.length)
  assert.equal(lastPrompt(), 'user: Tell me\nassistant: ')
})

test('a stream opens with the role at the first token and closes with the reason', async () => {
  const { events, isDone } = await harness.stream(URL, { messages, max_tokens: 4 })
  assert.ok(isDone)
  assert.deepEqual(events[0].choices, [
    { index: 0, delta: { role: 'assistant', content: '' }, logprobs: null, finish_reason: null },
  ])
  assert.equal(events[0].object, 'chat.completion.chunk')
  assert.equal(events.map((event) => event.choices[0].delta.content ?? '').join(''), 'One day, she')
  assert.ok(events.slice(1).every((event) => !('role' in event.choices[0].delta)))
  assert.equal(events.at(-1).choices[0].finish_reason, 'length')
  assert.equal(events.at(-1).choices[0].delta.content, ' she')
  assert.ok(events.slice(0, -1).every((event) => event.choices[0].finish_reason === null))
})

test('each of several streamed choices has its own role chunk', async () => {
  const { events } = await harness.stream(URL, { messages, n: 3, max_tokens: 2 })
  const roles = events.filter((event) => event.choices[0].delta.role === 'assistant')
  assert.deepEqual(
    roles.map((event) => event.choices[0].index),
    [0, 1, 2],
  )
})

test('max_completion_tokens wins over max_tokens', async () => {
  const answer = await harness.post(URL, { messages, max_tokens: 9, max_completion_tokens: 2 })
  assert.equal(answer.json.usage.completion_tokens, 2)
})

test('logprobs have exactly as many alternatives as asked for, with bytes', async () => {
  const answer = await harness.post(URL, { messages, max_tokens: 2, logprobs: true, top_logprobs: 2 })
  const { content } = answer.json.choices[0].logprobs
  assert.equal(content.length, 2)
  assert.deepEqual(content[0].token, ' One')
  assert.deepEqual(content[0].bytes, [...Buffer.from(' One')])
  assert.equal(content[0].top_logprobs.length, 2)
  const none = await harness.post(URL, { messages, max_tokens: 1, logprobs: true })
  assert.deepEqual(none.json.choices[0].logprobs.content[0].top_logprobs, [])
  const { events } = await harness.stream(URL, { messages, max_tokens: 2, logprobs: true, top_logprobs: 1 })
  assert.equal(events.flatMap((event) => event.choices[0].logprobs?.content ?? []).length, 2)
})

test('text parts are joined, and other parts refused', async () => {
  const parts = [
    { type: 'text', text: 'a' },
    { type: 'text', text: 'b' },
  ]
  await harness.post(URL, { messages: [{ role: 'user', content: parts }], max_tokens: 1 })
  assert.equal(lastPrompt(), 'user: a\nb\nassistant: ')
  const image = [{ type: 'image_url', image_url: { url: 'x' } }]
  const refused = await harness.post(URL, { messages: [{ role: 'user', content: image }] })
  assert.equal(refused.status, 400)
  assert.equal(refused.json.error.param, 'messages[0].content[0].type')
})

test('the final message can be continued, and echoed', async () => {
  const body = {
    messages: [...messages, { role: 'assistant', content: 'Well,' }],
    add_generation_prompt: false,
    continue_final_message: true,
    max_tokens: 2,
  }
  const answer = await harness.post(URL, body)
  assert.equal(lastPrompt(), 'user: Tell me\nassistant: Well,')
  assert.equal(answer.json.choices[0].message.content, ' One day')
  const echoed = await harness.post(URL, { ...body, echo: true })
  assert.equal(echoed.json.choices[0].message.content, 'Well, One day')
  const { events } = await harness.stream(URL, { ...body, echo: true })
  assert.equal(events.map((event) => event.choices[0].delta.content ?? '').join(''), 'Well, One day')
})

test('token ids come back at the places of chat', async () => {
  const answer = await harness.post(URL, { messages, max_tokens: 2, return_token_ids: true })
  assert.deepEqual(answer.json.choices[0].token_ids, STORY.slice(0, 2))
  assert.deepEqual(answer.json.prompt_token_ids, [...harness.engine.submitted.at(-1)!.promptTokenIds])
  const { events } = await harness.stream(URL, { messages, max_tokens: 2, return_token_ids: true })
  assert.deepEqual(
    events.flatMap((event) => event.choices[0].token_ids ?? []),
    STORY.slice(0, 2),
  )
  assert.equal(events.filter((event) => 'prompt_token_ids' in event).length, 1)
})

const refusals: [string, object, string][] = [
  ['no messages', { messages: [] }, 'messages'],
  ['absent messages', {}, 'messages'],
  ['messages of another type', { messages: 'hi' }, 'messages'],
  ['an unknown role', { messages: [{ role: 'boss', content: 'x' }] }, 'messages[0].role'],
  ['content of another type', { messages: [{ role: 'user', content: 5 }] }, 'messages[0].content'],
  ['top_logprobs alone', { messages, top_logprobs: 2 }, 'top_logprobs'],
  ['too many top_logprobs', { messages, logprobs: true, top_logprobs: 21 }, 'top_logprobs'],
  ['logprobs as a number', { messages, logprobs: 3 }, 'logprobs'],
  ['no room for output', { messages, max_tokens: 0 }, 'max_tokens'],
  ['both continuations', { messages, continue_final_message: true }, 'continue_final_message'],
  ['a template', { messages, chat_template: '{{ 1 }}' }, 'chat_template'],
  ['tools', { messages, tools: [{ type: 'function', function: { name: 'f' } }] }, 'tools'],
  ['an empty list of tools', { messages, tools: [] }, 'tools'],
  ['a choice without tools', { messages, tool_choice: 'auto' }, 'tool_choice'],
  ['JSON output', { messages, response_format: { type: 'json_object' } }, 'response_format'],
  ['an unknown output', { messages, response_format: { type: 'poem' } }, 'response_format.type'],
]
for (const [name, body, param] of refusals) {
  test(`${name}: 400 naming ${param}`, async () => {
    const answer = await harness.post(URL, body)
    assert.equal(answer.status, 400)
    assert.equal(answer.json.error.param, param)
    assert.equal(answer.json.error.code, 400)
  })
}

test('what asks for nothing special is accepted', async () => {
  const inert = { tool_choice: 'none', response_format: { type: 'text' }, parallel_tool_calls: true, user: 'me', store: false }
  assert.equal((await harness.post(URL, { messages, max_tokens: 1, ...inert })).status, 200)
  const tools = [{ type: 'function', function: { name: 'f' } }]
  assert.equal((await harness.post(URL, { messages, max_tokens: 1, tools, tool_choice: 'none' })).status, 200)
})

test('a model without a template says so, and one without a tokenizer too', async () => {
  const plain = await startHarness({ text: demoText({ chatTemplate: null }) })
  const answer = await plain.post(URL, { messages })
  assert.equal(answer.status, 400)
  assert.match(answer.json.error.message, /chat template/)
  await plain.close()
  const textless = await startHarness({ text: demoText({ chatTemplate: null, tokenizer: null }) })
  assert.match((await textless.post(URL, { messages })).json.error.message, /token ids/)
  await textless.close()
})

test('/tokenize renders messages like chat does', async () => {
  const answer = await harness.post('/tokenize', { messages })
  const tokens = demoTokenizer().encode('user: Tell me\nassistant: ', false)
  assert.deepEqual(answer.json, { count: tokens.length, max_model_len: 512, tokens, token_strs: null })
  assert.ok(CHAT_TEMPLATE.length > 0)
})
