// The built server on the demo model's adapters and the null backend: its metrics as a scraper and promtool read them, and its traces.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { after, before, test } from 'node:test'
import { MetricsText } from '../support/metrics-text.ts'
import { ServerProcess } from '../support/server-process.ts'
import { TraceCollector } from '../support/trace-collector.ts'

const DEMO = new URL('../../demo/', import.meta.url).pathname
const ADAPTERS = ['pirate', 'cat', 'rain']

let server: ServerProcess
let collector: TraceCollector

before(async () => {
  collector = await TraceCollector.start()
  const args = ['--model', `${DEMO}model`, '--served-model-name', 'demo', '--backend', 'null', '--log-format', 'json']
  const adapters = ADAPTERS.flatMap((name) => ['--adapter', `${name}=${DEMO}adapters/${name}`])
  server = await ServerProcess.start([...args, ...adapters, '--otlp-traces-endpoint', collector.url])
})
after(async () => {
  await server.stop()
  await collector.close()
})

async function complete(model: string): Promise<void> {
  const response = await fetch(`${server.url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model, prompt: 'Once upon a time', max_tokens: 8, ignore_eos: true }),
  })
  assert.equal(response.status, 200, await response.text())
}

async function scrapeText(): Promise<string> {
  return (await fetch(`${server.url}/metrics`)).text()
}

/** Lists of adapters arrive a moment after answers. */
async function scrapeUntil(isDone: (metrics: MetricsText) => boolean): Promise<MetricsText> {
  const deadlineMs = Date.now() + 10_000
  for (;;) {
    const metrics = new MetricsText(await scrapeText())
    if (isDone(metrics)) return metrics
    assert.ok(Date.now() < deadlineMs, 'the metrics did not come to what was waited for')
    await new Promise((resolve) => setTimeout(resolve, 30))
  }
}

test('adapters are followed from disk to the device', async () => {
  const loaded = new MetricsText(await scrapeText())
  for (const adapter of ADAPTERS) {
    assert.equal(loaded.value('lorikeet_adapter_loads_total', { adapter, tier: 'host', result: 'ok' }), 1, adapter)
    assert.ok(loaded.value('lorikeet_adapter_loading_seconds_total', { adapter, tier: 'host' }) > 0)
    assert.ok(loaded.value('lorikeet_adapter_bytes', { adapter, tier: 'host' }) > 0)
    assert.equal(loaded.value('lorikeet_adapter_bytes', { adapter, tier: 'device' }), 0)
  }
  assert.equal(loaded.value('lorikeet_adapter_state', { state: 'host' }), 3)
  for (const model of ['pirate', 'cat', 'demo']) await complete(model)
  const used = await scrapeUntil((metrics) => metrics.value('lorikeet_adapter_slots_used') === 2)
  for (const adapter of ['pirate', 'cat']) {
    assert.equal(used.value('lorikeet_adapter_loads_total', { adapter, tier: 'device', result: 'ok' }), 1, adapter)
    assert.ok(used.value('lorikeet_adapter_bytes', { adapter, tier: 'device' }) > 0)
    assert.equal(used.value('lorikeet_adapter_tokens_total', { adapter, kind: 'generation' }), 8)
  }
  assert.equal(used.value('lorikeet_adapter_state', { state: 'device' }), 2)
  assert.equal(used.value('lorikeet_adapter_load_seconds_count', { from: 'disk' }), 3)
  assert.equal(used.value('lorikeet_adapter_load_seconds_count', { from: 'host' }), 2)
  assert.equal(
    used.value('lorikeet_adapter_memory_bytes', { tier: 'device' }),
    used.samples('lorikeet_adapter_bytes', { tier: 'device' }).reduce((sum, { value }) => sum + value, 0),
  )
  assert.equal(used.value('vllm:generation_tokens_total'), 24)
})

test('promtool reads the page, and its linter finds nothing in names of our own', async (t) => {
  if (spawnSync('promtool', ['--version']).error !== undefined) {
    t.skip('promtool is not installed (Debian: apt-get install prometheus)')
    return
  }
  await complete('rain')
  const { stdout, stderr, status } = spawnSync('promtool', ['check', 'metrics'], {
    input: await scrapeText(),
    encoding: 'utf8',
  })
  // 3 = it parsed, with lint; 1 = it did not parse.
  assert.ok(status === 0 || status === 3, stderr)
  const complaints = `${stdout}${stderr}`.split('\n').filter((line) => line !== '')
  const given = /^(vllm:|nodejs_active_(handles|requests|resources)_total )/
  assert.deepEqual(
    complaints.filter((line) => !given.test(line)),
    [],
  )
  assert.ok(
    complaints.some((line) => line.startsWith('vllm:')),
    'the linter ran',
  )
})

test('the last spans leave with the server', async () => {
  await complete('pirate')
  assert.equal(await server.stop(), 0)
  const adapters = collector.spans.map((span) => span.attributes['lorikeet.adapter'])
  assert.equal(adapters.at(-1), 'pirate')
  assert.deepEqual([...new Set(collector.spans.map((span) => span.name))], ['llm_request'])
})
