// Every query of every board, ours and vLLM's, and every rule, against a real Prometheus that scrapes a server under load.

import assert from 'node:assert/strict'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { boardQueries, interpolate, labelValues, readDashboards } from '../support/dashboards.ts'
import { missing, Prometheus } from '../support/prometheus.ts'
import { DEMO_ADAPTERS, DEMO_MODEL, ServerProcess } from '../support/server-process.ts'
import { VLLM_MODEL_VARIABLES, vllmBoardQueries } from '../support/vllm-boards.ts'
import { vllmFleetQueries } from '../support/vllm-fleet-boards.ts'

const SCRAPE_INTERVAL = '250ms'
// Many scrapes, and all of the load: rates of the whole test.
const RATE_WINDOW = '30s'
const RANGE = '1m'
const ADAPTERS = ['pirate', 'robot', 'chef', 'knight']
const NUM_ROUNDS = 8
// The last samples of the load are scraped, and rules have run on them.
const SETTLE_MS = 2500
const POLL_MS = 500

const reason = missing('prometheus')
if (reason !== null) console.log(`skipped: ${reason}`)

describe('a real Prometheus on the shipped configuration', { skip: reason ?? false }, () => {
  let server: ServerProcess
  let prometheus: Prometheus

  before(async () => {
    server = await ServerProcess.start([
      ...['--model', DEMO_MODEL, '--served-model-name', 'base', '--backend', 'null', '--adapter-dir', DEMO_ADAPTERS],
      ...['--allow-runtime-lora-updating', '--max-num-seqs', '4', '--adapter-device-bytes', '1MiB', '--log-format', 'json'],
    ])
    prometheus = await Prometheus.start(server.url, SCRAPE_INTERVAL)
    await waitForTarget(prometheus)
    await load(server.url)
    await new Promise((wake) => setTimeout(wake, SETTLE_MS))
  })

  after(async () => {
    await prometheus?.stop()
    await server?.stop()
    if (prometheus) rmSync(prometheus.folder, { recursive: true, force: true })
  })

  it('every query of our boards returns numbers', async () => {
    const queries = boardQueries(readDashboards())
    assert.ok(queries.length > 80)
    await assertAnswered(
      prometheus,
      queries.map(({ where, expr }) => [where, interpolate(expr, RATE_WINDOW, RANGE)]),
    )
  })

  it("every query of vLLM's boards returns numbers", async () => {
    await assertAnswered(
      prometheus,
      [...vllmBoardQueries('base', RATE_WINDOW, RANGE), ...vllmFleetQueries(RATE_WINDOW, RANGE)].map((query) => [
        "vLLM's boards",
        query,
      ]),
    )
  })

  it('every variable has something to choose', async () => {
    const definitions = readDashboards().flatMap(({ templating }) =>
      templating.list.flatMap(({ definition }) => definition ?? []),
    )
    const vllm = VLLM_MODEL_VARIABLES.map((family) => `label_values(${family}, model_name)`)
    for (const definition of new Set([...definitions, ...vllm])) {
      const { selector, label } = labelValues(interpolate(definition, RATE_WINDOW, RANGE))
      const values = await prometheus.labelValues(selector, label)
      if (label === 'adapter')
        assert.ok(
          ['_base', ...ADAPTERS].every((name) => values.includes(name)),
          String(values),
        )
      else if (label === 'model_name') assert.deepEqual(values, ['base'])
      else assert.equal(values.length, 1, definition)
    }
  })

  it('every rule is evaluated, recording rules record, and no alert is raised by health', async () => {
    const rules = await prometheus.rules()
    assert.ok(rules.length >= 14)
    assert.deepEqual(
      rules.filter(({ health }) => health !== 'ok').map(({ name, lastError }) => `${name}: ${lastError}`),
      [],
    )
    for (const { name } of rules.filter((rule) => rule.name.includes(':'))) {
      assert.ok((await prometheus.query(name)).length > 0, `${name} records nothing`)
    }
    assert.deepEqual(await prometheus.query('ALERTS{alertname=~"LorikeetDown|LorikeetErrors"}'), [])
  })
})

async function waitForTarget(prometheus: Prometheus): Promise<void> {
  const deadlineMs = Date.now() + 10_000
  while (Date.now() < deadlineMs) {
    const up = await prometheus.query('up{job="lorikeet"}')
    if (up[0]?.value[1] === '1') return
    await new Promise((wake) => setTimeout(wake, POLL_MS))
  }
  assert.fail('Prometheus does not scrape the server')
}

/** Each query answers, and at least one of its samples is a number. */
async function assertAnswered(prometheus: Prometheus, queries: readonly (readonly [string, string])[]): Promise<void> {
  const silent: string[] = []
  for (const [where, query] of queries) {
    const samples = await prometheus.query(query)
    if (!samples.some(({ value: [, text] }) => Number.isFinite(Number(text)))) silent.push(`${where}: ${query}`)
  }
  assert.deepEqual(silent, [])
}

async function post(url: string, path: string, body: object, signal?: AbortSignal): Promise<number> {
  const headers = { 'content-type': 'application/json' }
  const answer = await fetch(`${url}${path}`, {
    method: 'POST',
    headers,
    body: JSON.stringify(body),
    ...(signal && { signal }),
  })
  await answer.text()
  return answer.status
}

/** Something of everything that the boards show: adapters, streams, prefixes in common, clients that leave, refusals, loads. */
async function load(url: string): Promise<void> {
  const prompt = 'Once upon a time there was a small bird that '.repeat(4)
  for (let round = 0; round < NUM_ROUNDS; round++) {
    const calls = [...ADAPTERS, 'base'].flatMap((model) => [
      post(url, '/v1/completions', { model, prompt: `${prompt}${round}`, max_tokens: 40, ignore_eos: true, stream: true }),
      post(url, '/v1/completions', { model, prompt, max_tokens: 8, n: 2 }),
    ])
    const long = { model: 'robot', prompt, max_tokens: 400, ignore_eos: true }
    // Most of these leave in the middle; one that is served sooner does no harm.
    calls.push(post(url, '/v1/completions', long, AbortSignal.timeout(30)).catch(() => 200))
    const statuses = await Promise.all(calls)
    assert.ok(
      statuses.every((status) => status === 200),
      statuses.join(),
    )
    assert.equal(await post(url, '/v1/completions', { model: 'no such adapter', prompt, max_tokens: 1 }), 404)
    const adapter = { lora_name: 'passing', lora_path: join(DEMO_ADAPTERS, 'space') }
    assert.equal(await post(url, '/v1/load_lora_adapter', adapter), 200)
    assert.equal(await post(url, '/v1/completions', { model: 'passing', prompt, max_tokens: 4 }), 200)
    assert.equal(await post(url, '/v1/unload_lora_adapter', adapter), 200)
  }
}
