import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { LorikeetError } from '../../src/errors.ts'
import { type Answer, demoText, type Harness, startHarness } from '../support/http-harness.ts'

let harness: Harness
before(async () => {
  harness = await startHarness()
})
after(() => harness.close())

const COMPLETIONS = '/v1/completions'
const ok = { prompt: 'x', max_tokens: 1 }
const long = Array.from({ length: 512 }, () => 5)

// body, status, type, param, words of the message
const badCompletions: [string, unknown, number, string, string | null, RegExp][] = [
  ['not JSON', '{"prompt": ', 400, 'Bad Request', null, /not JSON/],
  ['a list', [], 400, 'Bad Request', null, /object/],
  ['a number', '5', 400, 'Bad Request', null, /object/],
  ['no prompt', {}, 400, 'Bad Request', 'prompt', /required/],
  ['an empty prompt', { prompt: '' }, 400, 'Bad Request', 'prompt', /empty/],
  ['an empty list', { prompt: [] }, 400, 'Bad Request', 'prompt', /empty/],
  ['an empty inner list', { prompt: [[]] }, 400, 'Bad Request', 'prompt', /empty/],
  ['a mixed list', { prompt: [1, 'a'] }, 400, 'Bad Request', 'prompt', /mix/],
  ['mixed prompts', { prompt: ['a', [1]] }, 400, 'Bad Request', 'prompt', /mix/],
  ['fractional ids', { prompt: [1.5] }, 400, 'Bad Request', 'prompt', /mix/],
  ['an object', { prompt: {} }, 400, 'Bad Request', 'prompt', /string/],
  ['too many prompts', { prompt: Array.from({ length: 1025 }, () => 'a') }, 400, 'Bad Request', 'prompt', /1024/],
  ['ids out of vocabulary', { prompt: [1, 512] }, 400, 'BadRequestError', 'prompt', /out of vocabulary/],
  ['negative ids', { prompt: [-1] }, 400, 'BadRequestError', 'prompt', /out of vocabulary/],
  [
    'a prompt over the context',
    { prompt: [...long, 5] },
    400,
    'BadRequestError',
    'prompt',
    /maximum context length is 512 tokens/,
  ],
  [
    'a prompt that fills the context',
    { prompt: long },
    400,
    'BadRequestError',
    'prompt',
    /maximum context length is 512 tokens/,
  ],
  [
    'limit over the context',
    { prompt: 'x', max_tokens: 512 },
    400,
    'BadRequestError',
    'prompt',
    /maximum context length is 512/,
  ],
  [
    'text far over the context',
    { prompt: 'word '.repeat(100_000) },
    400,
    'BadRequestError',
    'prompt',
    /maximum context length/,
  ],
  ['unknown model', { ...ok, model: 'nobody' }, 404, 'NotFoundError', 'model', /The model `nobody` does not exist/],
  ['model of another type', { ...ok, model: 5 }, 400, 'Bad Request', 'model', /string/],
  ['unknown lora_path', { ...ok, lora_path: 'nobody' }, 404, 'NotFoundError', 'lora_path', /nobody/],
  ['suffix', { ...ok, suffix: 'end' }, 400, 'BadRequestError', 'suffix', /not supported/],
  ['temperature too high', { ...ok, temperature: 2.5 }, 400, 'Bad Request', 'temperature', /at most 2/],
  ['negative temperature', { ...ok, temperature: -1 }, 400, 'Bad Request', 'temperature', /at least 0/],
  ['temperature as text', { ...ok, temperature: '1' }, 400, 'Bad Request', 'temperature', /number/],
  ['top_p 0', { ...ok, top_p: 0 }, 400, 'Bad Request', 'top_p', /over 0/],
  ['top_p over 1', { ...ok, top_p: 1.1 }, 400, 'Bad Request', 'top_p', /at most 1/],
  ['top_k -2', { ...ok, top_k: -2 }, 400, 'Bad Request', 'top_k', /at least -1/],
  ['fractional top_k', { ...ok, top_k: 1.5 }, 400, 'Bad Request', 'top_k', /integer/],
  ['min_p over 1', { ...ok, min_p: 2 }, 400, 'Bad Request', 'min_p', /at most 1/],
  ['repetition_penalty 0', { ...ok, repetition_penalty: 0 }, 400, 'Bad Request', 'repetition_penalty', /over 0/],
  ['presence_penalty 3', { ...ok, presence_penalty: 3 }, 400, 'Bad Request', 'presence_penalty', /at most 2/],
  ['seed beyond 2^53', '{"prompt":"x","seed":9007199254740993}', 400, 'Bad Request', 'seed', /9007199254740991/],
  ['max_tokens as text', { prompt: 'x', max_tokens: '5' }, 400, 'Bad Request', 'max_tokens', /integer/],
  ['max_tokens 0 without echo', { prompt: 'x', max_tokens: 0 }, 400, 'Bad Request', 'max_tokens', /at least 1/],
  ['negative max_tokens', { prompt: 'x', max_tokens: -1 }, 400, 'Bad Request', 'max_tokens', /at least 0/],
  ['an empty stop', { ...ok, stop: '' }, 400, 'Bad Request', 'stop', /empty/],
  ['an empty stop in a list', { ...ok, stop: ['a', ''] }, 400, 'Bad Request', 'stop[1]', /empty/],
  ['five stops', { ...ok, stop: ['a', 'b', 'c', 'd', 'e'] }, 400, 'Bad Request', 'stop', /at most 4/],
  ['min_tokens over max_tokens', { ...ok, min_tokens: 2 }, 400, 'Bad Request', 'min_tokens', /max_tokens/],
  ['word in logit_bias', { ...ok, logit_bias: { hello: 1 } }, 400, 'Bad Request', 'logit_bias', /hello/],
  ['logit_bias out of vocabulary', { ...ok, logit_bias: { 512: 1 } }, 400, 'BadRequestError', 'logit_bias', /vocabulary/],
  ['text in logit_bias', { ...ok, logit_bias: { 5: 'x' } }, 400, 'Bad Request', 'logit_bias', /number/],
  ['no allowed ids', { ...ok, allowed_token_ids: [] }, 400, 'Bad Request', 'allowed_token_ids', /at least 1/],
  ['allowed ids out of vocabulary', { ...ok, allowed_token_ids: [512] }, 400, 'BadRequestError', 'allowed_token_ids', /vocab/],
  ['an empty bad word', { ...ok, bad_words: [''] }, 400, 'Bad Request', 'bad_words[0]', /empty/],
  ['n 0', { ...ok, n: 0 }, 400, 'Bad Request', 'n', /at least 1/],
  ['n 129', { ...ok, n: 129 }, 400, 'Bad Request', 'n', /at most 128/],
  ['too many choices', { prompt: Array(1000).fill('a'), n: 128 }, 400, 'Bad Request', 'n', /128000 choices/],
  ['greedy with n 2', { ...ok, n: 2, temperature: 0 }, 400, 'Bad Request', 'n', /temperature is 0/],
  ['best_of 2', { ...ok, best_of: 2 }, 400, 'Bad Request', 'best_of', /equal to n/],
  ['logprobs over the cap', { ...ok, logprobs: 21 }, 400, 'Bad Request', 'logprobs', /at most 20/],
  ['all logprobs', { ...ok, logprobs: -1 }, 400, 'Bad Request', 'logprobs', /-1/],
  ['prompt_logprobs streamed', { ...ok, stream: true, prompt_logprobs: 1 }, 400, 'Bad Request', 'prompt_logprobs', /stream/],
  ['stream as text', { ...ok, stream: 'yes' }, 400, 'Bad Request', 'stream', /true or false/],
  ['stream_options alone', { ...ok, stream_options: {} }, 400, 'Bad Request', 'stream_options', /stream/],
  [
    'wrong member of an option',
    { ...ok, stream: true, stream_options: { include_usage: 1 } },
    400,
    'Bad Request',
    'stream_options.include_usage',
    /true/,
  ],
  ['an empty cache_salt', { ...ok, cache_salt: '' }, 400, 'Bad Request', 'cache_salt', /empty/],
  ['beam search', { ...ok, use_beam_search: true }, 400, 'BadRequestError', 'use_beam_search', /beam/],
  [
    'structured outputs',
    { ...ok, structured_outputs: { json: {} } },
    400,
    'BadRequestError',
    'structured_outputs',
    /not supported/,
  ],
  ['guided_json', { ...ok, guided_json: {} }, 400, 'BadRequestError', 'guided_json', /not supported/],
  ['stream_interval 0', { ...ok, stream_interval: 0 }, 400, 'Bad Request', 'stream_interval', /at least 1/],
]

for (const [name, body, status, type, param, words] of badCompletions) {
  test(`${name}: ${status} ${type}${param === null ? '' : `, param ${param}`}`, async () => {
    const numSubmitted = harness.engine.submitted.length
    const answer = await harness.post(COMPLETIONS, body)
    assert.equal(answer.status, status)
    const { message, ...rest } = answer.json.error
    assert.deepEqual(rest, { type, param, code: status })
    assert.match(message, words)
    assert.ok(answer.headers['x-request-id'])
    assert.equal(harness.engine.submitted.length, numSubmitted)
  })
}

test('inert values of unsupported fields are accepted', async () => {
  const inert = { use_beam_search: false, length_penalty: 1, best_of: 1, vllm_xargs: {}, response_format: { type: 'text' } }
  assert.equal((await harness.post(COMPLETIONS, { ...ok, ...inert })).status, 200)
  assert.equal((await harness.post(COMPLETIONS, { ...ok, best_of: 0 })).status, 200)
})

test('a content type other than JSON is a 400, parameters are allowed', async () => {
  const bad = await harness.post(COMPLETIONS, ok, { 'content-type': 'text/plain' })
  assert.equal(bad.status, 400)
  assert.match(bad.json.error.message, /application\/json/)
  const good = await harness.post(COMPLETIONS, ok, { 'content-type': 'application/json; charset=utf-8' })
  assert.equal(good.status, 200)
  const none = await harness.server.app.inject({ method: 'POST', url: COMPLETIONS })
  assert.equal(none.statusCode, 400)
})

test('unknown paths are 404 and wrong methods 405, in the same shape', async () => {
  const missing = await harness.get('/v1/nothing')
  assert.equal(missing.status, 404)
  assert.equal(missing.json.error.type, 'Not Found')
  const wrong = await harness.get(COMPLETIONS)
  assert.equal(wrong.status, 405)
  assert.equal(wrong.headers['allow'], 'POST')
  assert.deepEqual([wrong.json.error.type, wrong.json.error.code], ['Method Not Allowed', 405])
  assert.match(wrong.json.error.message, /POST/)
  assert.equal((await harness.post('/v1/models/demo', {})).status, 405)
  const badUrl = await harness.get('/v1/models/%zz')
  assert.equal(badUrl.status, 400)
  assert.equal(badUrl.json.error.code, 400)
})

test('a body over the limit is a 413', async () => {
  const small = await startHarness({ server: { bodyLimitBytes: 1000 } })
  const answer = await small.post(COMPLETIONS, { prompt: 'x'.repeat(2000) })
  assert.equal(answer.status, 413)
  assert.equal(answer.json.error.type, 'Payload Too Large')
  await small.close()
})

test('the OpenAI style of errors has words for codes', async () => {
  const openai = await startHarness({ server: { errorStyle: 'openai', apiKeys: ['k'] } })
  const key = { authorization: 'Bearer k' }
  const fields = (answer: Answer) => [answer.status, answer.json.error.type, answer.json.error.code, answer.json.error.param]
  const post = (body: object, headers = key) => openai.post(COMPLETIONS, body, headers)
  assert.deepEqual(fields(await post({ ...ok, model: 'nobody' })), [404, 'invalid_request_error', 'model_not_found', 'model'])
  const tooLong = await post({ prompt: [...long, 1] })
  assert.deepEqual(fields(tooLong), [400, 'invalid_request_error', 'context_length_exceeded', 'prompt'])
  assert.deepEqual(fields(await post(ok, { authorization: 'Bearer z' })), [
    401,
    'authentication_error',
    'invalid_api_key',
    null,
  ])
  await openai.close()
})

test('keys guard what costs or changes something and leave probes open', async () => {
  const guarded = await startHarness({ server: { apiKeys: ['one', 'two'] } })
  for (const authorization of [undefined, 'Bearer three', 'Bearer ', 'one', 'Basic one']) {
    const answer = await guarded.post(COMPLETIONS, ok, authorization === undefined ? {} : { authorization })
    assert.equal(answer.status, 401, String(authorization))
    assert.match(answer.json.error.message, /Incorrect API key provided/)
  }
  for (const authorization of ['Bearer one', 'bearer two']) {
    assert.equal((await guarded.post(COMPLETIONS, ok, { authorization })).status, 200)
  }
  for (const url of ['/health', '/version', '/metrics', '/ping', '/health?x=1'])
    assert.equal((await guarded.get(url)).status, 200, url)
  for (const url of ['/v1/models', '/load']) assert.equal((await guarded.get(url)).status, 401, url)
  for (const url of ['/tokenize', '/detokenize', '/v1/load_lora_adapter'])
    assert.equal((await guarded.post(url, {})).status, 401, url)
  const preflight = await guarded.server.app.inject({
    method: 'OPTIONS',
    url: COMPLETIONS,
    headers: {
      origin: 'http://a.b',
      'access-control-request-method': 'POST',
      'access-control-request-headers': 'authorization',
    },
  })
  assert.equal(preflight.statusCode, 204)
  assert.equal(preflight.headers['access-control-allow-origin'], '*')
  await guarded.close()
  const metrics = await startHarness({ server: { apiKeys: ['one'], guardMetrics: true } })
  assert.equal((await metrics.get('/metrics')).status, 401)
  await metrics.close()
  assert.equal((await harness.post(COMPLETIONS, ok, { authorization: 'Bearer anything' })).status, 200)
})

test('request ids are echoed, and unusable ones replaced', async () => {
  const given = await harness.post(COMPLETIONS, ok, { 'x-request-id': 'abc-1' })
  assert.equal(given.headers['x-request-id'], 'abc-1')
  assert.equal(given.json.id, 'cmpl-abc-1')
  const again = await harness.post(COMPLETIONS, { ...ok, request_id: 'mine' }, { 'x-request-id': 'abc-1' })
  assert.equal(again.json.id, 'cmpl-abc-1')
  assert.equal((await harness.post(COMPLETIONS, { ...ok, request_id: 'mine' })).json.id, 'cmpl-mine')
  const unusable = await harness.post(COMPLETIONS, ok, { 'x-request-id': 'a b' })
  assert.match(unusable.headers['x-request-id'] as string, /^[0-9a-f]{32}$/)
})

test('while it is not ready the server says why and when to try again', async () => {
  const states = [
    ['starting', /starting/],
    ['draining', /shutting down/],
    ['dead', /stopped/],
  ] as const
  for (const [state, words] of states) {
    const down = await startHarness()
    down.engine.state = state
    for (const answer of [await down.post(COMPLETIONS, ok), await down.get('/health')]) {
      assert.equal(answer.status, 503)
      assert.equal(answer.headers['retry-after'], '1')
      assert.match(answer.json.error.message, words)
      assert.equal(answer.json.error.type, 'ServiceUnavailableError')
    }
    await down.close()
  }
})

test('a full queue is a 429, and empties again', async () => {
  const full = await startHarness({ maxNumSeqs: 1, maxQueue: 2, script: () => [300] })
  full.engine.pause()
  const running = [1, 2, 3].map(() => full.post(COMPLETIONS, ok))
  while (full.engine.numRunning < 3) await new Promise(setImmediate)
  const refused = await full.post(COMPLETIONS, ok)
  assert.equal(refused.status, 429)
  assert.equal(refused.headers['retry-after'], '1')
  assert.equal(refused.json.error.type, 'RateLimitError')
  full.engine.resume()
  for (const answer of await Promise.all(running)) assert.equal(answer.status, 200)
  assert.equal((await full.post(COMPLETIONS, ok)).status, 200)
  await full.close()
})

test('what the engine refuses keeps its status, streamed or not', async () => {
  const failure = new LorikeetError('REQUEST_TOO_LARGE', { needBlocks: 9, haveBlocks: 4 })
  const failing = await startHarness({ failure })
  assert.equal((await failing.post(COMPLETIONS, ok)).status, 400)
  const streamed = await failing.post(COMPLETIONS, { ...ok, stream: true })
  assert.equal(streamed.status, 400)
  assert.match(streamed.json.error.message, /KV blocks/)
  await failing.close()
  const broken = await startHarness({ failure: new LorikeetError('BACKEND_FAILED', { backend: 'x', detail: 'y' }) })
  const answer = await broken.post(COMPLETIONS, { ...ok, n: 2 })
  assert.deepEqual([answer.status, answer.json.error.type], [500, 'InternalServerError'])
  await broken.close()
})

test('what was not foreseen goes to the log and not to the client', async () => {
  const surprised = await startHarness({ script: () => assert.fail('/secret/path') })
  const answer = await surprised.post(COMPLETIONS, ok)
  assert.equal(answer.status, 500)
  assert.doesNotMatch(answer.text, /secret/)
  assert.ok(surprised.log.some((line) => JSON.stringify(line).includes('/secret/path')))
  await surprised.close()
})

test('without a tokenizer token ids work and everything textual is refused', async () => {
  const textless = await startHarness({ text: demoText({ tokenizer: null, chatTemplate: null }), script: () => [300, 301] })
  const answer = await textless.post(COMPLETIONS, { prompt: [1, 2], return_token_ids: true, logprobs: 1 })
  assert.equal(answer.json.choices[0].text, '')
  assert.deepEqual(answer.json.choices[0].token_ids, [300, 301])
  assert.deepEqual(answer.json.choices[0].logprobs.tokens, ['token_id:300', 'token_id:301'])
  const { events } = await textless.stream(COMPLETIONS, { prompt: [1, 2] })
  assert.equal(events.length, 3)
  const refusals: [string, object][] = [
    [COMPLETIONS, { prompt: 'x' }],
    [COMPLETIONS, { prompt: [1], stop: 'x' }],
    [COMPLETIONS, { prompt: [1], bad_words: ['x'] }],
    ['/tokenize', { prompt: 'x' }],
    ['/detokenize', { tokens: [1] }],
  ]
  for (const [url, body] of refusals) {
    const refused = await textless.post(url, body)
    assert.equal(refused.status, 400)
    assert.match(refused.json.error.message, /no tokenizer/)
  }
  await textless.close()
})
