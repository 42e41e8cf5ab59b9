import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { demoTokenizer, type Harness, startHarness } from '../support/http-harness.ts'

const STORY = demoTokenizer().encode('One day, she saw a big red ball. It was fun', false)
const EOS = 2
let harness: Harness

before(async () => {
  harness = await startHarness({ script: () => [...STORY, EOS] })
})
after(() => harness.close())

const complete = (body: object) => harness.post('/v1/completions', { prompt: 'Once upon a time', max_tokens: 64, ...body })
const lastSampling = () => harness.engine.submitted.at(-1)!.sampling

test('a completion has the shape of the API, nulls written out', async () => {
  const answer = await complete({})
  assert.equal(answer.status, 200)
  assert.match(answer.headers['content-type'] as string, /^application\/json/)
  const { id, created, system_fingerprint: fingerprint, ...rest } = answer.json
  assert.match(id, /^cmpl-[0-9a-f]{32}$/)
  assert.ok(Number.isInteger(created))
  assert.equal(typeof fingerprint, 'string')
  assert.deepEqual(rest, {
    object: 'text_completion',
    model: 'demo',
    choices: [
      {
        index: 0,
        text: 'One day, she saw a big red ball. It was fun',
        logprobs: null,
        finish_reason: 'stop',
        stop_reason: null,
        token_ids: null,
        prompt_logprobs: null,
        prompt_token_ids: null,
      },
    ],
    service_tier: null,
    usage: {
      prompt_tokens: 5,
      total_tokens: 5 + STORY.length + 1,
      completion_tokens: STORY.length + 1,
      prompt_tokens_details: { cached_tokens: 3 },
    },
    kv_transfer_params: null,
  })
})

test('an alias answers under the first name, and an absent limit is 16', async () => {
  const answer = await harness.post('/v1/completions', { model: 'alias', prompt: 'One day' })
  assert.equal(answer.json.model, 'demo')
  assert.equal(answer.json.usage.completion_tokens, 16)
  assert.equal(answer.json.choices[0].finish_reason, 'length')
})

test('a streamed completion concatenates to the whole, with the reason on the last chunk', async () => {
  const { status, headers, events, isDone } = await harness.stream('/v1/completions', { prompt: 'x', max_tokens: 64 })
  assert.equal(status, 200)
  assert.equal(headers['content-type'], 'text/event-stream; charset=utf-8')
  assert.equal(headers['cache-control'], 'no-cache')
  assert.equal(headers['x-accel-buffering'], 'no')
  assert.equal(headers['access-control-allow-origin'], '*')
  assert.ok(isDone)
  assert.equal(events.map((event) => event.choices[0].text).join(''), 'One day, she saw a big red ball. It was fun')
  assert.equal(new Set(events.map((event) => `${event.id} ${event.object} ${event.created} ${event.model}`)).size, 1)
  assert.ok(events.every((event) => !('usage' in event)))
  assert.deepEqual(
    events.map((event) => event.choices[0].finish_reason).filter((reason) => reason !== null),
    ['stop'],
  )
  assert.equal(events.at(-1).choices[0].finish_reason, 'stop')
})

test('a token limit puts its reason on a chunk that has text', async () => {
  const { events } = await harness.stream('/v1/completions', { prompt: 'x', max_tokens: 3 })
  assert.equal(events.at(-1).choices[0].finish_reason, 'length')
  assert.notEqual(events.at(-1).choices[0].text, '')
})

test('usage is streamed when asked for, once or with every chunk', async () => {
  const body = { prompt: 'x', max_tokens: 4, stream_options: { include_usage: true } }
  const once = await harness.stream('/v1/completions', body)
  assert.deepEqual(once.events.at(-1).choices, [])
  assert.equal(once.events.at(-1).usage.completion_tokens, 4)
  assert.ok(once.events.slice(0, -1).every((event) => !('usage' in event)))
  const always = await harness.stream('/v1/completions', {
    ...body,
    stream_options: { include_usage: true, continuous_usage_stats: true },
  })
  assert.deepEqual(
    always.events.map((event) => event.usage.completion_tokens),
    [1, 2, 3, 4, 4],
  )
  // As in vLLM, the second is without effect unless the first is true.
  const never = await harness.stream('/v1/completions', { ...body, stream_options: { continuous_usage_stats: true } })
  assert.equal(never.events.length, 4)
  assert.ok(never.events.every((event) => !('usage' in event)))
})

test('stop strings cut the text wherever their tokens lie, and end the sequence in the engine', async () => {
  const numAborted = harness.engine.aborted.length
  const answer = await complete({ stop: ['big re', 'never'] })
  assert.equal(answer.json.choices[0].text, 'One day, she saw a ')
  assert.equal(answer.json.choices[0].finish_reason, 'stop')
  assert.equal(answer.json.choices[0].stop_reason, 'big re')
  assert.equal(harness.engine.aborted.length, numAborted + 1)
  assert.equal(harness.engine.numRunning, 0)
  const included = await complete({ stop: 'big re', include_stop_str_in_output: true })
  assert.equal(included.json.choices[0].text, 'One day, she saw a big re')
})

test('a stream never shows part of a stop string', async () => {
  const { events } = await harness.stream('/v1/completions', { prompt: 'x', max_tokens: 64, stop: ' saw a big red b' })
  assert.equal(events.map((event) => event.choices[0].text).join(''), 'One day, she')
  assert.equal(events.at(-1).choices[0].stop_reason, ' saw a big red b')
})

test('min_tokens keeps stop strings from matching early', async () => {
  const answer = await complete({ stop: ' day', min_tokens: 5 })
  assert.equal(answer.json.choices[0].stop_reason, null)
  assert.equal(lastSampling().minTokens, 5)
})

test('a stop token leaves no text unless it is included', async () => {
  const stop = STORY[3]!
  const answer = await complete({ stop_token_ids: [stop], return_token_ids: true })
  assert.equal(answer.json.choices[0].stop_reason, stop)
  assert.deepEqual(answer.json.choices[0].token_ids, STORY.slice(0, 4))
  const included = await complete({ stop_token_ids: [stop], include_stop_str_in_output: true })
  assert.ok(included.json.choices[0].text.length > answer.json.choices[0].text.length)
})

test('several prompts and samples are numbered prompt by prompt, with seeds counted up', async () => {
  const before = harness.engine.submitted.length
  const answer = await complete({ prompt: [[4], [5, 6]], n: 2, seed: 40, max_tokens: 2 })
  assert.deepEqual(
    answer.json.choices.map((choice: { index: number }) => choice.index),
    [0, 1, 2, 3],
  )
  const submitted = harness.engine.submitted.slice(before)
  assert.deepEqual(
    submitted.map((request) => request.sampling.seed),
    [40, 41, 40, 41],
  )
  assert.deepEqual([...submitted[3]!.promptTokenIds], [5, 6])
  assert.equal(new Set(submitted.map((request) => request.requestId)).size, 4)
  assert.equal(answer.json.usage.prompt_tokens, 3)
  assert.equal(answer.json.usage.completion_tokens, 8)
})

test('several streamed choices each end once', async () => {
  const { events } = await harness.stream('/v1/completions', { prompt: ['a', 'b'], n: 2, max_tokens: 3, temperature: 1 })
  for (let index = 0; index < 4; index++) {
    const own = events.filter((event) => event.choices[0].index === index)
    assert.equal(own.length, 3)
    assert.equal(own.at(-1).choices[0].finish_reason, 'length')
  }
})

test('token ids come back when asked for, complete in a stream too', async () => {
  const answer = await complete({ return_token_ids: true })
  assert.deepEqual(answer.json.choices[0].token_ids, [...STORY, EOS])
  assert.deepEqual(answer.json.choices[0].prompt_token_ids, [1, 403, 407, 261, 378])
  const { events } = await harness.stream('/v1/completions', { prompt: [5, 6], max_tokens: 64, return_token_ids: true })
  assert.deepEqual(
    events.flatMap((event) => event.choices[0].token_ids),
    [...STORY, EOS],
  )
  assert.deepEqual(events[0].choices[0].prompt_token_ids, [5, 6])
  assert.ok(events.slice(1).every((event) => !('prompt_token_ids' in event.choices[0])))
})

test('echo puts the prompt first, whole or streamed, and spaces the output as the prompt needs', async () => {
  const answer = await complete({ echo: true, max_tokens: 2 })
  assert.equal(answer.json.choices[0].text, 'Once upon a time One day')
  const { events } = await harness.stream('/v1/completions', { prompt: 'Once upon a time', echo: true, max_tokens: 2 })
  assert.equal(events[0].choices[0].text, 'Once upon a time')
  assert.equal(events.map((event) => event.choices[0].text).join(''), 'Once upon a time One day')
})

test('echo without output scores the prompt', async () => {
  const answer = await complete({ prompt: [1, 403, 407], echo: true, max_tokens: 0, logprobs: 1 })
  assert.equal(lastSampling().maxTokens, 0)
  assert.equal(lastSampling().promptLogprobs, 1)
  const { text, logprobs, finish_reason: reason } = answer.json.choices[0]
  assert.equal(text, 'Once upon')
  assert.equal(reason, 'length')
  assert.deepEqual(logprobs.tokens, ['<s>', ' Once', ' upon'])
  assert.deepEqual(logprobs.token_logprobs, [null, -1, -1])
  assert.deepEqual(logprobs.text_offset, [0, 0, 4])
  assert.deepEqual(logprobs.top_logprobs[0], null)
  assert.equal(Object.keys(logprobs.top_logprobs[1]).length, 2)
  const { events } = await harness.stream('/v1/completions', { prompt: [1, 403], echo: true, max_tokens: 0, logprobs: 1 })
  assert.equal(events.length, 1)
  assert.equal(events[0].choices[0].finish_reason, 'length')
  assert.equal(events[0].choices[0].logprobs.tokens.length, 2)
})

test('logprobs have k or k + 1 alternatives, offsets in characters, and no infinities', async () => {
  const answer = await complete({ logprobs: 2, max_tokens: 3 })
  const { logprobs, text } = answer.json.choices[0]
  assert.equal(logprobs.tokens.join(''), ' One day,')
  assert.equal(text, 'One day,')
  assert.deepEqual(logprobs.text_offset, [0, 3, 7])
  assert.ok(logprobs.top_logprobs.every((top: object) => Object.keys(top).length === 3))
  const none = await complete({ logprobs: 0, max_tokens: 1 })
  assert.deepEqual(none.json.choices[0].logprobs.top_logprobs, [{ ' One': -1 }])
  const streamed = await harness.stream('/v1/completions', { prompt: 'x', logprobs: 2, max_tokens: 3 })
  assert.deepEqual(
    streamed.events.flatMap((event) => event.choices[0].logprobs.text_offset),
    [0, 3, 7],
  )
})

test('tokens can be named by id', async () => {
  const answer = await complete({ logprobs: 1, max_tokens: 1, return_tokens_as_token_ids: true })
  assert.deepEqual(answer.json.choices[0].logprobs.tokens, [`token_id:${STORY[0]}`])
})

test('prompt_logprobs maps token ids to value, rank and text', async () => {
  const answer = await complete({ prompt: [1, 403, 0], prompt_logprobs: 1, max_tokens: 1 })
  const [first, second, third] = answer.json.choices[0].prompt_logprobs
  assert.equal(first, null)
  assert.deepEqual(second['403'], { logprob: -1, rank: 3, decoded_token: ' Once' })
  assert.equal(second['265'].rank, 1)
  assert.equal(third['0'].logprob, -9999)
})

test('every sampling field reaches the engine', async () => {
  await complete({
    temperature: 0.7,
    top_p: 0.9,
    top_k: -1,
    min_p: 0.05,
    repetition_penalty: 1.1,
    presence_penalty: 0.5,
    frequency_penalty: -0.5,
    seed: 7,
    min_tokens: 2,
    ignore_eos: true,
    logit_bias: { 300: 500, 301: -1 },
    allowed_token_ids: [300, 301],
    bad_words: ['Lily'],
    priority: 3,
    cache_salt: 'pepper',
  })
  const request = harness.engine.submitted.at(-1)!
  const { sampling } = request
  assert.equal(sampling.temperature, 0.7)
  assert.equal(sampling.topP, 0.9)
  assert.equal(sampling.topK, 0)
  assert.equal(sampling.minP, 0.05)
  assert.equal(sampling.repetitionPenalty, 1.1)
  assert.equal(sampling.presencePenalty, 0.5)
  assert.equal(sampling.frequencyPenalty, -0.5)
  assert.equal(sampling.seed, 7)
  assert.equal(sampling.minTokens, 2)
  assert.equal(sampling.maxTokens, 64)
  assert.equal(sampling.ignoreEos, true)
  assert.deepEqual(sampling.eosTokenIds, [2])
  assert.deepEqual(sampling.logitBias, [
    [300, 100],
    [301, -1],
  ])
  assert.deepEqual(sampling.allowedTokenIds, [300, 301])
  assert.deepEqual(sampling.badWords, [demoTokenizer().encode('Lily', false)])
  assert.equal(request.priority, 3)
  assert.equal(request.cacheSalt, 'pepper')
})

test('temperatures near zero are greedy, and small ones are raised to what arithmetic can bear', async () => {
  await complete({ temperature: 0.000001, top_p: 0.5, top_k: 5, min_p: 0.1 })
  assert.deepEqual([lastSampling().temperature, lastSampling().topP, lastSampling().topK, lastSampling().minP], [0, 1, 0, 0])
  await complete({ temperature: 0.001 })
  assert.equal(lastSampling().temperature, 0.01)
  await complete({ seed: -1 })
  assert.equal(lastSampling().seed, null)
})

test('prompts are truncated from the side that is asked for', async () => {
  const prompt = [10, 11, 12, 13]
  await complete({ prompt, truncate_prompt_tokens: 2 })
  assert.deepEqual([...harness.engine.submitted.at(-1)!.promptTokenIds], [12, 13])
  await complete({ prompt, truncate_prompt_tokens: 2, truncation_side: 'right' })
  assert.deepEqual([...harness.engine.submitted.at(-1)!.promptTokenIds], [10, 11])
  const long = Array.from({ length: 600 }, (_, i) => i % 500)
  const answer = await complete({ prompt: long, truncate_prompt_tokens: -1, max_tokens: 10 })
  assert.equal(answer.status, 200)
  assert.equal(harness.engine.submitted.at(-1)!.promptTokenIds.length, 502)
})

test('stream_interval gathers tokens, first and last chunk excepted', async () => {
  const { events } = await harness.stream('/v1/completions', {
    prompt: 'x',
    max_tokens: 8,
    stream_interval: 3,
    return_token_ids: true,
  })
  assert.deepEqual(
    events.map((event) => event.choices[0].token_ids.length),
    [1, 3, 3, 1],
  )
})

test('null and unknown fields count as absent', async () => {
  const answer = await complete({
    temperature: null,
    stop: null,
    n: null,
    stream: null,
    stream_options: null,
    made_up: { a: 1 },
  })
  assert.equal(answer.status, 200)
  assert.equal(lastSampling().temperature, 1)
})

test('one line is logged a request', async () => {
  harness.log.length = 0
  await complete({ max_tokens: 2 })
  const line = harness.log.find((entry) => entry.msg === 'request')!
  assert.match(line['requestId'] as string, /^cmpl-/)
  assert.equal(line['adapter'], null)
  assert.equal(line['promptTokens'], 5)
  assert.equal(line['outputTokens'], 2)
  assert.equal(line['ttftMs'], 5)
  assert.equal(typeof line['totalMs'], 'number')
  assert.equal(line['finishReason'], 'length')
})
