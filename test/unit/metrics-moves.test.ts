// Each family moves when it should, by the right amount, and gauges come back to rest.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { type MetricsHarness, startMetricsHarness } from '../support/metrics-harness.ts'
import type { MetricsText } from '../support/metrics-text.ts'

const ids = (count: number, seed = 1): number[] => Array.from({ length: count }, (_, i) => 3 + ((i * 7 + seed * 13) % 400))

function counts(metrics: MetricsText, names: readonly string[]): Record<string, number> {
  return Object.fromEntries(names.map((name) => [name, metrics.value(`vllm:${name}`)]))
}

const finished = (metrics: MetricsText): number =>
  metrics.samples('vllm:request_success_total').reduce((sum, { value }) => sum + value, 0)

function assertAtRest(metrics: MetricsText): void {
  const atRest = ['num_requests_running', 'num_requests_waiting', 'kv_cache_usage_perc', 'gpu_cache_usage_perc']
  for (const name of atRest) assert.equal(metrics.value(`vllm:${name}`), 0, name)
  for (const { labels, value } of metrics.samples('vllm:num_requests_waiting_by_reason')) {
    assert.equal(value, 0, `waiting by ${labels['reason']}`)
  }
  for (const { labels, value } of metrics.samples('lorikeet_adapter_queue_depth')) {
    assert.equal(value, 0, `waiting for ${labels['adapter']}`)
  }
  const [lora] = metrics.samples('vllm:lora_requests_info')
  assert.deepEqual([lora?.labels['running_lora_adapters'], lora?.labels['waiting_lora_adapters']], ['', ''])
  assert.equal(metrics.value('lorikeet_adapter_state', { state: 'loading' }), 0)
}

async function withHarness(
  options: Parameters<typeof startMetricsHarness>[0],
  work: (harness: MetricsHarness) => Promise<void>,
): Promise<void> {
  const harness = await startMetricsHarness(options)
  try {
    await work(harness)
  } finally {
    await harness.close()
  }
}

describe('request metrics', () => {
  it('count one call with samples', () =>
    withHarness({}, async (harness) => {
      const body = { prompt: ids(10), max_tokens: 5, n: 3, seed: 1, ignore_eos: true }
      assert.equal((await harness.post('/v1/completions', body)).status, 200)
      const metrics = await harness.scrapeUntil((m) => finished(m) === 3)
      assert.equal(metrics.value('vllm:request_success_total', { finished_reason: 'length' }), 3)
      assert.deepEqual(
        counts(metrics, [
          'prompt_tokens_total',
          'generation_tokens_total',
          'time_to_first_token_seconds_count',
          'e2e_request_latency_seconds_count',
          'request_queue_time_seconds_count',
          'request_prefill_time_seconds_count',
          'request_decode_time_seconds_count',
          'request_inference_time_seconds_count',
          'request_time_per_output_token_seconds_count',
          'request_prompt_tokens_sum',
          'request_generation_tokens_sum',
          'request_params_max_tokens_sum',
          // Once a prompt, not once a sample.
          'request_params_n_count',
          'request_params_n_sum',
          'request_max_num_generation_tokens_count',
          'request_max_num_generation_tokens_sum',
          // One gap fewer than tokens, by sequence.
          'inter_token_latency_seconds_count',
          'time_per_output_token_seconds_count',
        ]),
        {
          prompt_tokens_total: 30,
          generation_tokens_total: 15,
          time_to_first_token_seconds_count: 3,
          e2e_request_latency_seconds_count: 3,
          request_queue_time_seconds_count: 3,
          request_prefill_time_seconds_count: 3,
          request_decode_time_seconds_count: 3,
          request_inference_time_seconds_count: 3,
          request_time_per_output_token_seconds_count: 3,
          request_prompt_tokens_sum: 30,
          request_generation_tokens_sum: 15,
          request_params_max_tokens_sum: 15,
          request_params_n_count: 1,
          request_params_n_sum: 3,
          request_max_num_generation_tokens_count: 1,
          request_max_num_generation_tokens_sum: 5,
          inter_token_latency_seconds_count: 12,
          time_per_output_token_seconds_count: 12,
        },
      )
      const sum = (name: string) => metrics.value(`vllm:${name}_seconds_sum`)
      const parts = sum('request_queue_time') + sum('request_prefill_time') + sum('request_decode_time')
      assert.ok(Math.abs(parts - sum('e2e_request_latency')) < 0.05, 'queue, prefill and decode make up the whole')
      assert.ok(Math.abs(sum('inter_token_latency') - sum('request_decode_time')) < 1e-6, 'gaps make up the decode time')
      assertAtRest(metrics)
    }))

  it('count the prefix cache in tokens', () =>
    withHarness({}, async (harness) => {
      const body = { prompt: ids(40), max_tokens: 1, ignore_eos: true }
      await harness.post('/v1/completions', body)
      await harness.post('/v1/completions', body)
      const metrics = await harness.scrapeUntil((m) => finished(m) === 2)
      // Blocks of 4 tokens; the last token of a prompt is always computed.
      assert.deepEqual(
        counts(metrics, ['prefix_cache_queries_total', 'prefix_cache_hits_total', 'prompt_tokens_cached_total']),
        {
          prefix_cache_queries_total: 80,
          prefix_cache_hits_total: 36,
          prompt_tokens_cached_total: 36,
        },
      )
      assert.equal(metrics.value('vllm:prompt_tokens_by_source_total', { source: 'local_cache_hit' }), 36)
      assert.equal(metrics.value('vllm:prompt_tokens_by_source_total', { source: 'local_compute' }), 44)
      assert.equal(metrics.value('vllm:request_prefill_kv_computed_tokens_sum'), 44)
      assert.equal(metrics.value('vllm:gpu_prefix_cache_hit_rate'), 36 / 80)
      assert.equal(metrics.value('vllm:gpu_prefix_cache_hits_total'), 36)
    }))

  it('count steps by phase, with their tokens and adapters', () =>
    withHarness({}, async (harness) => {
      await harness.client.loadAdapter({ name: 'a', path: '/a' }, false)
      await harness.post('/v1/completions', { model: 'a', prompt: ids(10), max_tokens: 4, ignore_eos: true })
      const metrics = await harness.scrapeUntil((m) => finished(m) === 1)
      assert.equal(metrics.value('vllm:iteration_tokens_total_count'), 4)
      // The prompt, then each output token but the last one.
      assert.equal(metrics.value('vllm:iteration_tokens_total_sum'), 13)
      assert.equal(metrics.value('lorikeet_batch_adapters_count'), 4)
      assert.equal(metrics.value('lorikeet_batch_adapters_sum'), 4)
      for (const phase of ['schedule', 'execute', 'sample', 'update']) {
        assert.equal(metrics.value('lorikeet_step_seconds_count', { phase }), 4, phase)
      }
    }))

  it('tell adapters apart, and from the base model', () =>
    withHarness({}, async (harness) => {
      for (const name of ['a', 'b']) await harness.client.loadAdapter({ name, path: `/${name}` }, false)
      for (const [model, prompt] of [
        ['a', 8],
        ['a', 8],
        ['b', 5],
        ['demo', 3],
      ] as const) {
        await harness.post('/v1/completions', { model, prompt: ids(prompt), max_tokens: 2, ignore_eos: true })
      }
      const metrics = await harness.scrapeUntil((m) => finished(m) === 4)
      for (const [adapter, requests, promptTokens] of [
        ['a', 2, 16],
        ['b', 1, 5],
        ['_base', 1, 3],
        ['_other', 0, 0],
      ] as const) {
        assert.equal(metrics.value('lorikeet_adapter_requests_total', { adapter, outcome: 'success' }), requests, adapter)
        assert.equal(metrics.value('lorikeet_adapter_tokens_total', { adapter, kind: 'prompt' }), promptTokens, adapter)
        assert.equal(metrics.value('lorikeet_adapter_tokens_total', { adapter, kind: 'generation' }), 2 * requests, adapter)
        assert.equal(metrics.value('lorikeet_adapter_ttft_seconds_count', { adapter }), requests, adapter)
        assert.equal(metrics.value('lorikeet_adapter_e2e_seconds_count', { adapter }), requests, adapter)
      }
      await harness.client.unloadAdapter('a')
      const later = await harness.scrapeUntil((m) => !m.labelValues('lorikeet_adapter_requests_total', 'adapter').includes('a'))
      assert.deepEqual(later.labelValues('lorikeet_adapter_ttft_seconds_count', 'adapter'), ['_base', '_other', 'b'])
    }))

  it('show what runs and what waits while it does', () =>
    withHarness({}, async (harness) => {
      await harness.client.loadAdapter({ name: 'a', path: '/a' }, false)
      // 64 sequences run at once; the model has 256 positions.
      const calls = Array.from({ length: 70 }, (_, i) =>
        harness.post('/v1/completions', { model: 'a', prompt: ids(4, i), max_tokens: 40, ignore_eos: true }),
      )
      const busy = await harness.scrapeUntil((m) => m.value('vllm:num_requests_running') > 0)
      assert.ok(busy.value('vllm:kv_cache_usage_perc') > 0)
      assert.equal(busy.samples('vllm:lora_requests_info')[0]?.labels['running_lora_adapters'], 'a')
      await Promise.all(calls)
      const metrics = await harness.scrapeUntil((m) => finished(m) === 70)
      assertAtRest(metrics)
    }))
})

describe('gauges after storms', () => {
  it('return to rest when clients leave, wherever their requests were', () =>
    withHarness({ maxQueue: 1000, stepDelayMs: 1 }, async (harness) => {
      for (const name of ['a', 'b', 'c']) await harness.client.loadAdapter({ name, path: `/${name}` }, false)
      const address = await harness.server.listen()
      const leavers: AbortController[] = []
      const call = async (i: number): Promise<string> => {
        const controller = new AbortController()
        const model = ['a', 'b', 'c', 'demo'][Math.floor(i / 4) % 4]
        const [streams, leavesWhenBusy] = [i % 4 < 2, i % 4 === 2]
        if (leavesWhenBusy) leavers.push(controller)
        try {
          const response = await fetch(`${address}/v1/completions`, {
            method: 'POST',
            headers: { 'content-type': 'application/json' },
            body: JSON.stringify({ model, prompt: ids(20, i), max_tokens: 60, ignore_eos: true, stream: streams }),
            signal: controller.signal,
          })
          if (!streams) return await response.text()
          await response.body?.getReader().read()
          for (const leaver of leavers) leaver.abort()
          controller.abort()
          return 'left'
        } catch (error) {
          assert.equal((error as Error).name, 'AbortError')
          return 'left'
        }
      }
      const answers = await Promise.all(Array.from({ length: 48 }, (_, i) => call(i)))
      const metrics = await harness.scrapeUntil(
        (m) => m.value('vllm:num_requests_running') + m.value('vllm:num_requests_waiting') === 0,
      )
      assertAtRest(metrics)
      assert.equal(answers.filter((answer) => answer.includes('length')).length, 12)
      assert.ok(metrics.value('vllm:request_success_total', { finished_reason: 'abort' }) > 0, 'their requests were aborted')
      const byAdapter = metrics.samples('lorikeet_adapter_requests_total').reduce((sum, { value }) => sum + value, 0)
      assert.equal(byAdapter, finished(metrics), 'every sequence belongs to one adapter')
      assert.equal(metrics.value('vllm:avg_generation_throughput_toks_per_s') >= 0, true)
    }))

  it('return to rest when the engine dies, and counters go on', () =>
    withHarness({}, async (harness) => {
      const calls = Array.from({ length: 8 }, (_, i) =>
        harness.post('/v1/completions', { prompt: ids(8, i), max_tokens: 200, ignore_eos: true }),
      )
      await harness.scrapeUntil((m) => m.value('vllm:num_requests_running') > 0)
      harness.engines.crash('a test')
      for (const answer of await Promise.all(calls)) assert.ok(answer.status >= 500)
      const metrics = await harness.scrapeUntil((m) => finished(m) === 8)
      assertAtRest(metrics)
      assert.equal(metrics.value('vllm:request_success_total', { finished_reason: 'error' }), 8)
      assert.equal(metrics.value('lorikeet_adapter_requests_total', { adapter: '_base', outcome: 'error' }), 8)
    }))
})

describe('refusals', () => {
  it('are counted by reason, probes not among them', () =>
    withHarness({ maxQueue: 1, stepDelayMs: 1, server: { apiKeys: ['k'] } }, async (harness) => {
      const key = { authorization: 'Bearer k' }
      assert.equal((await harness.get('/v1/models')).status, 401)
      const flood = Array.from({ length: 66 }, (_, i) =>
        harness.post('/v1/completions', { prompt: ids(4, i), max_tokens: 10, ignore_eos: true }, key),
      )
      const statuses = (await Promise.all(flood)).map((answer) => answer.status)
      const numRefused = statuses.filter((status) => status === 429).length
      assert.ok(numRefused > 0)
      const last = harness.post('/v1/completions', { prompt: ids(4), max_tokens: 100, ignore_eos: true }, key)
      await harness.scrapeUntil((m) => m.value('vllm:num_requests_running') === 1)
      const refused = async () => {
        assert.equal((await harness.get('/health')).status, 503)
        assert.equal((await harness.post('/v1/completions', { prompt: [3] }, key)).status, 503)
      }
      const stopping = harness.client.shutdown(5000)
      await refused()
      assert.equal((await last).status, 200)
      await stopping
      await refused()
      const metrics = await harness.scrape()
      const rejected = (reason: string) => metrics.value('lorikeet_rejected_total', { reason })
      assert.deepEqual(['auth', 'queue_full', 'draining', 'unavailable'].map(rejected), [1, numRefused, 1, 1])
    }))
})

describe('HTTP metrics', () => {
  it('count requests by the template of their route', () =>
    withHarness({}, async (harness) => {
      await harness.post('/v1/completions', { prompt: ids(4), max_tokens: 2 })
      await harness.stream('/v1/completions', { prompt: ids(4), max_tokens: 2 })
      await harness.post('/v1/completions', { prompt: 5 })
      await harness.get('/v1/models/demo')
      await harness.get('/health')
      await harness.get('/no/such/path')
      const metrics = await harness.scrape()
      const requests = metrics
        .samples('http_requests_total')
        .map(({ labels, value }) => [`${labels['method']} ${labels['handler']} ${labels['status']}`, value])
      assert.deepEqual(Object.fromEntries(requests), {
        'POST /v1/completions 2xx': 2,
        'POST /v1/completions 4xx': 1,
        'GET /v1/models/* 2xx': 1,
        'GET none 4xx': 1,
      })
      assert.equal(metrics.value('http_request_duration_seconds_count', { handler: '/v1/completions', method: 'POST' }), 3)
      assert.equal(metrics.value('http_request_duration_highr_seconds_count'), 5)
      assert.ok(metrics.value('http_request_size_bytes_sum', { handler: '/v1/completions' }) > 50)
      assert.ok(metrics.value('http_response_size_bytes_sum', { handler: '/v1/completions' }) > 100)
    }))
})
