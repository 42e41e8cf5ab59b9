import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { CHAT_FIELDS } from '../../src/server/request/chat-fields.ts'
import { COMPLETION_FIELDS } from '../../src/server/request/completion-fields.ts'
import { demoTokenizer, type Harness, startHarness } from '../support/http-harness.ts'

let harness: Harness
before(async () => {
  harness = await startHarness()
})
after(() => harness.close())

test('probes answer', async () => {
  const health = await harness.get('/health')
  assert.deepEqual([health.status, health.text], [200, ''])
  assert.equal((await harness.get('/ping')).status, 200)
  assert.deepEqual((await harness.get('/version')).json, { version: '9.9.9' })
  assert.deepEqual((await harness.get('/load')).json, { server_load: 0 })
})

test('tokenize and detokenize are inverse, with the special tokens that are asked for', async () => {
  const answer = await harness.post('/tokenize', { prompt: 'Once upon a time', return_token_strs: true })
  const tokens = [1, 403, 407, 261, 378]
  assert.deepEqual(answer.json, {
    count: 5,
    max_model_len: 512,
    tokens,
    token_strs: tokens.map((token) => demoTokenizer().tokenString(token)),
  })
  const plain = await harness.post('/tokenize', { prompt: 'Once upon a time', add_special_tokens: false })
  assert.deepEqual(plain.json.tokens, tokens.slice(1))
  const back = await harness.post('/detokenize', { tokens: tokens.slice(1) })
  assert.deepEqual(back.json, { prompt: 'Once upon a time' })
  assert.deepEqual((await harness.post('/detokenize', { tokens: [] })).json, { prompt: '' })
})

test('bad token requests are named', async () => {
  const cases: [string, object, number, string | null][] = [
    ['/tokenize', {}, 400, 'prompt'],
    ['/tokenize', { prompt: 'a', messages: [] }, 400, 'prompt'],
    ['/tokenize', { prompt: 5 }, 400, 'prompt'],
    ['/tokenize', { prompt: 'a', model: 'nobody' }, 404, 'model'],
    ['/tokenize', { prompt: 'a'.repeat(300_000) }, 400, 'prompt'],
    ['/detokenize', {}, 400, 'tokens'],
    ['/detokenize', { tokens: 'a' }, 400, 'tokens'],
    ['/detokenize', { tokens: [1, null] }, 400, 'tokens[1]'],
    ['/detokenize', { tokens: [600] }, 400, 'tokens'],
  ]
  for (const [url, body, status, param] of cases) {
    const answer = await harness.post(url, body)
    assert.deepEqual([answer.status, answer.json.error.param], [status, param], `${url} ${JSON.stringify(body).slice(0, 80)}`)
  }
})

test('/metrics has one series of each family from the start, and counts', async () => {
  const fresh = await startHarness({ script: () => [300, 301] })
  const before = await fresh.get('/metrics')
  assert.equal(before.headers['content-type'], 'text/plain; version=0.0.4; charset=utf-8')
  const series = (text: string, name: string) => text.split('\n').filter((line) => line.startsWith(`${name}{`))
  const labels = 'model_name="demo",engine="0"'
  for (const name of ['vllm:num_requests_running', 'vllm:num_requests_waiting', 'vllm:kv_cache_usage_perc']) {
    assert.deepEqual(series(before.text, name), [`${name}{${labels}} 0`])
  }
  assert.deepEqual(series(before.text, 'vllm:generation_tokens_total'), [`vllm:generation_tokens_total{${labels}} 11`])
  assert.equal(series(before.text, 'vllm:request_success_total').length, 5)
  assert.equal(series(before.text, 'vllm:time_to_first_token_seconds_count').length, 1)
  assert.match(series(before.text, 'vllm:cache_config_info')[0]!, /block_size="16",num_gpu_blocks="64"/)
  const [lora] = series(before.text, 'vllm:lora_requests_info')
  assert.match(lora!, /waiting_lora_adapters="",running_lora_adapters="a,b"/)
  await fresh.post('/v1/completions', { prompt: 'x' })
  await new Promise((resolve) => setTimeout(resolve, 20))
  const { text } = await fresh.get('/metrics')
  assert.ok(text.includes(`vllm:request_success_total{${labels},finished_reason="length"} 1`))
  assert.ok(text.includes(`vllm:time_to_first_token_seconds_count{${labels}} 1`))
  assert.ok(text.includes(`vllm:request_generation_tokens_sum{${labels}} 2`))
  await fresh.close()
})

test('balancers get the load with any answer that they ask it of', async () => {
  const header = async (format: string) => {
    const answer = await harness.post(
      '/v1/completions',
      { prompt: 'x', max_tokens: 1, stream: true },
      { 'endpoint-load-metrics-format': format },
    )
    return answer.headers['endpoint-load-metrics']
  }
  assert.equal(await header('TEXT'), 'TEXT named_metrics.kv_cache_usage_perc=0, named_metrics.num_requests_waiting=0')
  assert.equal(await header('JSON'), 'JSON {"named_metrics":{"kv_cache_usage_perc":0,"num_requests_waiting":0}}')
  assert.equal(await header('XML'), undefined)
})

test('/openapi.json describes every route and every field that is validated', async () => {
  const { json } = await harness.get('/openapi.json')
  assert.equal(json.openapi, '3.1.0')
  const bodyOf = (path: string) => json.paths[path].post.requestBody.content['application/json'].schema
  assert.deepEqual(Object.keys(bodyOf('/v1/completions').properties), Object.keys(COMPLETION_FIELDS))
  assert.deepEqual(Object.keys(bodyOf('/v1/chat/completions').properties), Object.keys(CHAT_FIELDS))
  assert.deepEqual(bodyOf('/v1/completions').required, ['prompt'])
  assert.deepEqual(bodyOf('/v1/completions').properties.top_k, { type: ['integer', 'null'], minimum: -1 })
  const errorOf = (path: string) => JSON.stringify(json.paths[path].post.responses['4XX'])
  assert.match(errorOf('/generate'), /schemas\/LoraxError/)
  assert.doesNotMatch(errorOf('/v1/completions'), /LoraxError/)
  for (const [path, operations] of Object.entries(json.paths)) {
    for (const method of Object.keys(operations as object)) {
      const url = path.replace('{id}', 'demo')
      const answer = await harness.send(method, url, method === 'post' ? '{}' : undefined, {
        'content-type': 'application/json',
      })
      assert.notEqual(answer.status, 405, `${method} ${path}`)
      assert.doesNotMatch(answer.text, /There is no/, `${method} ${path}`)
    }
  }
})
