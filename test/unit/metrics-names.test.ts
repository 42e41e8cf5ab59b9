// The names, types, labels and buckets that vLLM's dashboards and routers expect, written down here once more.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, before, describe, it } from 'node:test'
import { replaceGenerated } from '../../src/cli/docs-tables.ts'
import { allFamilies, metricsTable } from '../../src/metrics/metrics-table.ts'
import { type MetricsHarness, startMetricsHarness } from '../support/metrics-harness.ts'
import { MetricsText } from '../support/metrics-text.ts'

const T = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560]
const I = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80]
const L = [0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680]
// The model of the tests has 256 positions.
const N = [1, 2, 5, 10, 20, 50, 100, 200]

const TWO = ['engine', 'model_name']
const CACHE_CONFIG = [
  'block_size',
  'cache_dtype',
  'enable_prefix_caching',
  'engine',
  'gpu_memory_utilization',
  'kv_cache_max_concurrency',
  'kv_cache_size_tokens',
  'num_gpu_blocks',
]
const LORA_INFO = ['max_lora', 'running_lora_adapters', 'waiting_lora_adapters']

type Row = readonly [name: string, type: string, labels: readonly string[], buckets?: readonly number[]]

const VLLM: readonly Row[] = [
  ['num_requests_running', 'gauge', TWO],
  ['num_requests_waiting', 'gauge', TWO],
  ['num_requests_waiting_by_reason', 'gauge', [...TWO, 'reason']],
  ['kv_cache_usage_perc', 'gauge', TWO],
  ['lora_requests_info', 'gauge', LORA_INFO],
  ['cache_config_info', 'gauge', CACHE_CONFIG],
  ['engine_sleep_state', 'gauge', [...TWO, 'sleep_state']],
  ['prompt_tokens_total', 'counter', TWO],
  ['generation_tokens_total', 'counter', TWO],
  ['request_success_total', 'counter', [...TWO, 'finished_reason']],
  ['num_preemptions_total', 'counter', TWO],
  ['prefix_cache_queries_total', 'counter', TWO],
  ['prefix_cache_hits_total', 'counter', TWO],
  ['prompt_tokens_cached_total', 'counter', TWO],
  ['prompt_tokens_by_source_total', 'counter', [...TWO, 'source']],
  ['time_to_first_token_seconds', 'histogram', TWO, T],
  ['inter_token_latency_seconds', 'histogram', TWO, I],
  ['request_time_per_output_token_seconds', 'histogram', TWO, I],
  ['e2e_request_latency_seconds', 'histogram', TWO, L],
  ['request_queue_time_seconds', 'histogram', TWO, L],
  ['request_prefill_time_seconds', 'histogram', TWO, L],
  ['request_decode_time_seconds', 'histogram', TWO, L],
  ['request_inference_time_seconds', 'histogram', TWO, L],
  ['request_prompt_tokens', 'histogram', TWO, N],
  ['request_generation_tokens', 'histogram', TWO, N],
  ['request_max_num_generation_tokens', 'histogram', TWO, N],
  ['request_params_max_tokens', 'histogram', TWO, N],
  ['request_prefill_kv_computed_tokens', 'histogram', TWO, N],
  ['request_params_n', 'histogram', TWO, [1, 2, 5, 10, 20]],
  ['iteration_tokens_total', 'histogram', TWO, [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384]],
]

const LEGACY: readonly Row[] = [
  ['gpu_cache_usage_perc', 'gauge', TWO],
  ['gpu_prefix_cache_hits_total', 'counter', TWO],
  ['gpu_prefix_cache_queries_total', 'counter', TWO],
  ['gpu_prefix_cache_hit_rate', 'gauge', TWO],
  ['time_per_output_token_seconds', 'histogram', TWO, I],
  ['num_requests_swapped', 'gauge', TWO],
  ['cpu_cache_usage_perc', 'gauge', TWO],
  ['avg_prompt_throughput_toks_per_s', 'gauge', TWO],
  ['avg_generation_throughput_toks_per_s', 'gauge', TWO],
]

const FIRST_VALUES: Readonly<Record<string, readonly string[]>> = {
  'vllm:request_success_total finished_reason': ['abort', 'error', 'length', 'repetition', 'stop'],
  'vllm:num_requests_waiting_by_reason reason': ['capacity', 'deferred'],
  'vllm:prompt_tokens_by_source_total source': ['external_kv_transfer', 'local_cache_hit', 'local_compute'],
  'vllm:engine_sleep_state sleep_state': ['awake', 'discard_all', 'weights_offloaded'],
  'lorikeet_adapter_state state': ['device', 'failed', 'host', 'loading', 'registered'],
  'lorikeet_adapter_memory_bytes tier': ['device', 'host'],
  'lorikeet_adapter_requests_total adapter': ['_base', '_other'],
  'lorikeet_adapter_requests_total outcome': ['abort', 'error', 'success'],
  'lorikeet_adapter_tokens_total kind': ['generation', 'prompt'],
  'lorikeet_adapter_wait_seconds_total cause': ['adapter', 'capacity'],
  'lorikeet_adapter_loads_total result': ['error', 'ok'],
  'lorikeet_adapter_load_seconds_count from': ['disk', 'host'],
  'lorikeet_step_seconds_count phase': ['execute', 'sample', 'schedule', 'update'],
  'lorikeet_rejected_total reason': ['auth', 'draining', 'queue_full', 'unavailable'],
}

let harness: MetricsHarness
let fresh: MetricsText

before(async () => {
  harness = await startMetricsHarness()
  fresh = await harness.scrape()
})
after(() => harness.close())

function check([bare, type, labels, buckets]: Row): void {
  const name = `vllm:${bare}`
  const family = fresh.families.get(name)
  assert.ok(family, `${name} is missing`)
  assert.equal(family.type, type, name)
  assert.ok(family.samples.length > 0, `${name} has no series before the first request`)
  for (const sample of family.samples) {
    const own = Object.keys(sample.labels).filter((label) => label !== 'le')
    assert.deepEqual(own.sort(), [...labels].sort(), name)
    if (labels.includes('model_name')) assert.deepEqual([sample.labels['model_name'], sample.labels['engine']], ['demo', '0'])
  }
  if (buckets === undefined) return
  const bounds = fresh.samples(`${name}_bucket`).map((sample) => sample.labels['le'])
  // As Python's client writes whole numbers: vLLM's boards match the text.
  const texts = buckets.map((bound) => (Number.isInteger(bound) ? bound.toFixed(1) : String(bound)))
  assert.deepEqual(bounds, [...texts, '+Inf'], name)
}

describe('metric names', () => {
  it("are vLLM's, with its types, labels and buckets", () => VLLM.forEach(check))

  it('include those vLLM has given up', () => LEGACY.forEach(check))

  it('have no other vllm: family', () => {
    const known = new Set([...VLLM, ...LEGACY].map(([name]) => `vllm:${name}`))
    assert.deepEqual(
      [...fresh.families.keys()].filter((name) => name.startsWith('vllm:') && !known.has(name)),
      [],
    )
  })

  it('have every value of their labels from the start', () => {
    for (const [key, values] of Object.entries(FIRST_VALUES)) {
      const [name, label] = key.split(' ') as [string, string]
      assert.deepEqual(fresh.labelValues(name, label), values, key)
    }
  })

  it('have one series each where routers take any', () => {
    for (const name of ['num_requests_running', 'num_requests_waiting', 'kv_cache_usage_perc', 'lora_requests_info']) {
      assert.equal(fresh.samples(`vllm:${name}`).length, 1, name)
    }
  })

  it('tell routers the shape of the cache', () => {
    const { labels } = fresh.samples('vllm:cache_config_info')[0]!
    assert.deepEqual(
      [labels['block_size'], labels['num_gpu_blocks'], labels['kv_cache_size_tokens'], labels['kv_cache_max_concurrency']],
      ['4', '256', '1024', '4'],
    )
  })

  it('leave the old ones out when told', async () => {
    const modern = await startMetricsHarness({ metrics: { hasLegacyNames: false } })
    const { families } = await modern.scrape()
    await modern.close()
    assert.deepEqual(
      LEGACY.filter(([name]) => families.has(`vllm:${name}`)),
      [],
    )
    assert.deepEqual(
      VLLM.filter(([name]) => !families.has(`vllm:${name}`)),
      [],
    )
  })

  it('are those of the process too', () => {
    for (const name of ['process_resident_memory_bytes', 'nodejs_eventloop_lag_seconds'])
      assert.ok(fresh.families.has(name), name)
  })

  it('are all described, and only they', async () => {
    // Families that have no series before their first request.
    await harness.get('/v1/models')
    const { families } = await harness.scrape()
    const shown = [...families.keys()].filter((name) => !/^(process|nodejs)_/.test(name)).sort()
    assert.deepEqual(
      allFamilies()
        .map(({ name }) => name)
        .sort(),
      shown,
    )
    for (const { name, type, help, labelNames } of allFamilies()) {
      const family = families.get(name)
      assert.deepEqual([family?.type, family?.help], [type, help], name)
      for (const { labels } of family?.samples ?? []) {
        assert.deepEqual(
          Object.keys(labels).filter((label) => label !== 'le' && !labelNames.includes(label)),
          [],
          name,
        )
      }
    }
  })

  it('stand in docs/metrics.md as npm run docs writes them', () => {
    const page = readFileSync(new URL('../../docs/metrics.md', import.meta.url), 'utf8')
    assert.equal(page, replaceGenerated(page, 'metrics', metricsTable()))
  })
})

describe('the reader of these tests', () => {
  it('refuses what a scraper refuses', () => {
    const head = '# HELP a b\n# TYPE a gauge\n'
    for (const bad of [
      `${head}a{b=c} 1\n`,
      `${head}a x\n`,
      `${head}c 1\n`,
      `${head}a 1`,
      `${head}a{b="c" 1\n`,
      `${head}a 1\n${head}`,
    ]) {
      assert.throws(() => new MetricsText(bad), bad)
    }
    assert.equal(new MetricsText(`${head}a{b="\\"\\\\\\n"} 1\n`).value('a', { b: '"\\\n' }), 1)
  })
})
