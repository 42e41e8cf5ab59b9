// The engine's thread dies under load: who waited is told, probes see it, and the next engine serves the same adapters.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { loadConfig } from '../../src/config/load-config.ts'
import { EngineClient } from '../../src/engine/engine-client.ts'
import { adapterCases } from '../support/demo-cases.ts'
import { startHarness } from '../support/http-harness.ts'
import { DEMO_ADAPTERS, DEMO_MODEL } from '../support/server-process.ts'

const PIRATE = adapterCases('pirate')[0]!
const NUM_RUNNING = 3

const turn = () => new Promise((resolve) => setTimeout(resolve, 5))

test('every pending call gets a coded error, health says so, and the same adapters serve again', async () => {
  const engine = EngineClient.start({
    config: loadConfig(['--model', DEMO_MODEL, '--backend', 'reference'], {}).config,
    threadUrl: pathToFileURL(join(import.meta.dirname, '../support/mortal-engine.mjs')),
    restartDelaysMs: [200],
  })
  await engine.ready
  const { post, get, close } = await startHarness({ engine })
  try {
    await engine.loadAdapter({ name: 'pirate', path: join(DEMO_ADAPTERS, 'pirate') }, false)
    const before = engine.findAdapter('pirate')?.id
    const long = { prompt: 'Once', max_tokens: 400, ignore_eos: true, temperature: 0 }
    const pending = Array.from({ length: NUM_RUNNING }, () => post('/v1/completions', { ...long, model: 'pirate' }))
    while (engine.stats().numRunning < NUM_RUNNING) await turn()
    const deadly = post('/v1/completions', { prompt: [13], max_tokens: 1 })
    for (const { status, json } of await Promise.all([...pending, deadly])) {
      assert.equal(status, 503)
      assert.equal(json.error.type, 'ServiceUnavailableError')
    }
    assert.equal((await get('/health')).status, 503)
    assert.equal((await post('/v1/completions', long)).status, 503)

    while (engine.state !== 'ready') await turn()
    assert.equal((await get('/health')).status, 200)
    const after = engine.findAdapter('pirate')?.id
    assert.ok(before !== undefined && after !== undefined && after > before, 'an id never names two generations')
    const again = { model: 'pirate', prompt: PIRATE.prompt, max_tokens: PIRATE.tokenIds.length, temperature: 0 }
    assert.equal((await post('/v1/completions', again)).json.choices[0].text, PIRATE.text)
    assert.equal(engine.stats().numRunning, 0)
    assert.equal(engine.stats().numUsedBlocks, 0)
  } finally {
    await close()
    await engine.shutdown(0)
  }
})
