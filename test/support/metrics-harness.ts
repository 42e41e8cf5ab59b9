// The server on a real engine with the null backend, all in this process, and its metrics.

import assert from 'node:assert/strict'
import type { Config } from '../../src/config.ts'
import { EngineClient } from '../../src/engine/engine-client.ts'
import { type Harness, type HarnessOptions, startHarness } from './http-harness.ts'
import { InProcessEngines } from './in-process-link.ts'
import { MetricsText } from './metrics-text.ts'

export interface MetricsHarness extends Harness {
  readonly client: EngineClient
  readonly engines: InProcessEngines
  scrape(): Promise<MetricsText>
  /** The first scrape for which `isDone` holds: the engine's facts arrive a moment after its answers. */
  scrapeUntil(isDone: (metrics: MetricsText) => boolean): Promise<MetricsText>
}

// The server keeps its text this long.
const TEXT_TTL_MS = 11
const DEADLINE_MS = 5000

export interface MetricsHarnessOptions extends Omit<HarnessOptions, 'engine'> {
  /** Of the null backend. */
  readonly stepDelayMs?: number
}

export async function startMetricsHarness(options: MetricsHarnessOptions = {}): Promise<MetricsHarness> {
  const engines = new InProcessEngines()
  engines.stepDelayMs = options.stepDelayMs ?? 0
  const client = EngineClient.start({
    // The links never look at the config.
    config: {} as Config,
    threadUrl: new URL('file:///none.js'),
    links: engines.links,
    restartDelaysMs: [1, 1],
  })
  await client.ready
  const harness = await startHarness({ ...options, engine: client })
  const scrape = async (): Promise<MetricsText> => {
    await new Promise((resolve) => setTimeout(resolve, TEXT_TTL_MS))
    return new MetricsText((await harness.get('/metrics')).text)
  }
  return {
    ...harness,
    client,
    engines,
    scrape,
    scrapeUntil: async (isDone) => {
      const deadlineMs = performance.now() + DEADLINE_MS
      for (;;) {
        const metrics = await scrape()
        if (isDone(metrics)) return metrics
        assert.ok(performance.now() < deadlineMs, 'the metrics did not come to what was waited for')
      }
    },
    close: async () => {
      await harness.close()
      await client.shutdown(0)
    },
  }
}
