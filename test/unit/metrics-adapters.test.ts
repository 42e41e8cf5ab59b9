// Families by adapter: who has series, what they say, and the small parts below them.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { MetricsRegistry } from '../../src/metrics/metrics-registry.ts'
import { PerAdapterFamilies } from '../../src/metrics/per-adapter-families.ts'
import type { EngineSnapshot, ListedAdapter, SequenceTimes } from '../../src/metrics/records.ts'
import { ServerMetrics } from '../../src/metrics/server-metrics.ts'
import { TextFamily } from '../../src/metrics/text-family.ts'
import { ThroughputWindow } from '../../src/metrics/throughput-window.ts'
import { MetricsText } from '../support/metrics-text.ts'

const TIMES: SequenceTimes = {
  arrivedAtMs: 1000,
  firstScheduledAtMs: 1300,
  firstTokenAtMs: 1400,
  lastTokenAtMs: 2000,
  finishedAtMs: 2000,
  adapterWaitMs: 100,
  numPromptTokens: 10,
  numOutputTokens: 5,
  numCachedTokens: 0,
}

const IDLE: EngineSnapshot = {
  numRunning: 0,
  numWaiting: 0,
  numWaitingForAdapter: 0,
  numBlocks: 4,
  numUsedBlocks: 0,
  numPreemptions: 0,
  numPrefixQueryTokens: 0,
  numPrefixHitTokens: 0,
  numPromptTokens: 0,
  numCachedPromptTokens: 0,
  numGenerationTokens: 0,
  runningAdapters: [],
  waitingAdapters: [],
  numWaitingByAdapter: [],
}

function listed(name: string, more: Partial<ListedAdapter> = {}): ListedAdapter {
  return { name, state: 'loaded', hostBytes: 10, deviceBytes: 0, isLoading: false, ...more }
}

class Scene {
  readonly registry = new MetricsRegistry()
  readonly families: PerAdapterFamilies
  adapters: ListedAdapter[] = []
  snapshot = IDLE
  nowMs = 0

  constructor(maxTracked: number) {
    this.families = new PerAdapterFamilies(this.registry, {
      snapshot: () => this.snapshot,
      adapters: {
        list: () => this.adapters,
        isListed: (name) => this.adapters.some((adapter) => adapter.name === name),
        numLoading: () => 0,
      },
      maxTracked,
      now: () => this.nowMs,
    })
  }

  finish(adapter: string | null, times: Partial<SequenceTimes> = {}): void {
    this.families.observePrompt({
      adapter,
      sequences: [{ reason: 'stop', times: { ...TIMES, ...times }, maxTokens: 5 }],
    })
  }

  async read(): Promise<MetricsText> {
    this.families.refresh()
    return new MetricsText(await this.registry.text())
  }

  async tracked(): Promise<string[]> {
    return (await this.read()).labelValues('lorikeet_adapter_requests_total', 'adapter')
  }
}

describe('series by adapter', () => {
  it('go to the first ones, and the rest share theirs', async () => {
    const scene = new Scene(2)
    scene.adapters = ['a', 'b', 'c', 'd'].map((name) => listed(name))
    for (const name of ['a', 'b', 'c', 'd', 'c', 'gone']) scene.finish(name)
    const metrics = await scene.read()
    const requests = (adapter: string) => metrics.value('lorikeet_adapter_requests_total', { adapter, outcome: 'success' })
    assert.deepEqual(['a', 'b', '_other', '_base'].map(requests), [1, 1, 4, 0])
    assert.deepEqual(await scene.tracked(), ['_base', '_other', 'a', 'b'])
  })

  it('move on from an adapter without requests for long, and go away with an unloaded one', async () => {
    const scene = new Scene(2)
    scene.adapters = ['a', 'b', 'c', 'd'].map((name) => listed(name))
    scene.finish('a')
    scene.nowMs = 500_000
    scene.finish('b')
    scene.finish('c')
    assert.deepEqual(await scene.tracked(), ['_base', '_other', 'a', 'b'])
    scene.nowMs = 700_000
    scene.finish('c')
    assert.deepEqual(await scene.tracked(), ['_base', '_other', 'b', 'c'])
    scene.adapters = scene.adapters.filter(({ name }) => name !== 'b')
    scene.finish('b')
    assert.deepEqual(await scene.tracked(), ['_base', '_other', 'c'])
    scene.finish('d')
    assert.deepEqual(await scene.tracked(), ['_base', '_other', 'c', 'd'])
  })

  it('are given up at once by adapters that were only loaded', async () => {
    const scene = new Scene(2)
    scene.adapters = ['a', 'b', 'c'].map((name) => listed(name))
    for (const name of ['a', 'b', 'c']) scene.families.observeActivity({ name, tier: 'host', type: 'load', durationMs: 500 })
    assert.deepEqual(await scene.tracked(), ['_base', '_other', 'a', 'b'])
    scene.finish('c')
    assert.deepEqual(await scene.tracked(), ['_base', '_other', 'b', 'c'])
    const metrics = await scene.read()
    assert.equal(metrics.value('lorikeet_adapter_loads_total', { adapter: 'b', tier: 'host', result: 'ok' }), 1)
    assert.equal(metrics.value('lorikeet_adapter_loading_seconds_total', { adapter: 'b', tier: 'host' }), 0.5)
    assert.equal(metrics.value('lorikeet_adapter_loads_total', { adapter: '_other', tier: 'host', result: 'ok' }), 1)
  })

  it('can be none', async () => {
    const scene = new Scene(0)
    scene.adapters = [listed('a')]
    scene.finish('a')
    assert.deepEqual(await scene.tracked(), ['_base', '_other'])
  })

  it('split the wait by cause and charge what was computed', async () => {
    const scene = new Scene(2)
    scene.adapters = [listed('a')]
    scene.finish('a')
    scene.finish('a', {
      firstScheduledAtMs: null,
      firstTokenAtMs: null,
      lastTokenAtMs: null,
      numOutputTokens: 0,
      adapterWaitMs: 1000,
    })
    const metrics = await scene.read()
    const value = (name: string, labels: Record<string, string>) => metrics.value(name, { adapter: 'a', ...labels })
    assert.ok(Math.abs(value('lorikeet_adapter_wait_seconds_total', { cause: 'adapter' }) - 1.1) < 1e-9)
    assert.ok(Math.abs(value('lorikeet_adapter_wait_seconds_total', { cause: 'capacity' }) - 0.2) < 1e-9)
    assert.equal(value('lorikeet_adapter_tokens_total', { kind: 'prompt' }), 10)
    assert.equal(value('lorikeet_adapter_tokens_total', { kind: 'generation' }), 5)
    assert.equal(value('lorikeet_adapter_ttft_seconds_count', {}), 1)
    assert.equal(value('lorikeet_adapter_e2e_seconds_count', {}), 2)
  })

  it('show queues and bytes as they are now', async () => {
    const scene = new Scene(1)
    scene.adapters = [listed('a', { state: 'active', deviceBytes: 7 }), listed('b'), listed('c', { hostBytes: 1 })]
    scene.snapshot = { ...IDLE, numWaiting: 9, waitingAdapters: ['a', 'b', 'c'], numWaitingByAdapter: [2, 3, 1] }
    const busy = await scene.read()
    const depths = (metrics: MetricsText) =>
      Object.fromEntries(metrics.samples('lorikeet_adapter_queue_depth').map(({ labels, value }) => [labels['adapter'], value]))
    assert.deepEqual(depths(busy), { _base: 3, _other: 4, a: 2 })
    assert.equal(busy.value('lorikeet_adapter_bytes', { adapter: 'a', tier: 'device' }), 7)
    assert.equal(busy.value('lorikeet_adapter_bytes', { adapter: '_other', tier: 'host' }), 11)
    scene.snapshot = IDLE
    scene.adapters = []
    assert.deepEqual(depths(await scene.read()), { _base: 0, _other: 0 })
    assert.equal((await scene.read()).value('lorikeet_adapter_bytes', { adapter: '_other', tier: 'host' }), 0)
  })
})

describe('adapters as a whole', () => {
  const scene = { adapters: [] as ListedAdapter[], snapshot: IDLE }
  const create = (loraInfo: 'running' | 'resident') =>
    new ServerMetrics({
      model: {
        modelName: 'm',
        modelType: 't',
        backend: 'null',
        dtype: 'float32',
        maxModelLen: 16,
        blockSize: 4,
        numBlocks: 4,
        isPrefixCachingEnabled: true,
      },
      build: { version: '1', revision: 'abc' },
      maxAdapters: 8,
      adapterLimits: { host: 100, device: 50 },
      maxTrackedAdapters: 4,
      hasLegacyNames: true,
      loraInfo,
      snapshot: () => scene.snapshot,
      adapters: { list: () => scene.adapters, isListed: () => true, numLoading: () => 2 },
    })

  it('are counted by state and summed by tier', async () => {
    scene.adapters = [
      listed('a', { state: 'pinned', deviceBytes: 5 }),
      listed('b', { state: 'active', deviceBytes: 6, hostBytes: 0 }),
      listed('c'),
      listed('d', { state: 'registered', hostBytes: 0 }),
      listed('e', { state: 'registered', hostBytes: 0, isLoading: true }),
    ]
    const metrics = create('running')
    metrics.observeAdapterActivity({ name: 'x', tier: 'host', type: 'failed-load', durationMs: 1 })
    metrics.observeAdapterActivity({ name: 'y', tier: 'host', type: 'failed-load', durationMs: 1 })
    metrics.observeAdapterActivity({ name: 'y', tier: 'host', type: 'load', durationMs: 20 })
    const text = new MetricsText(await metrics.text())
    const states = text.samples('lorikeet_adapter_state').map(({ labels, value }) => [labels['state'], value])
    assert.deepEqual(Object.fromEntries(states), { registered: 1, host: 1, device: 2, loading: 3, failed: 1 })
    assert.equal(text.value('lorikeet_adapter_memory_bytes', { tier: 'host' }), 20)
    assert.equal(text.value('lorikeet_adapter_memory_bytes', { tier: 'device' }), 11)
    assert.equal(text.value('lorikeet_adapter_memory_limit_bytes', { tier: 'device' }), 50)
    assert.equal(text.value('lorikeet_adapter_slots_used'), 2)
    assert.equal(text.value('lorikeet_adapter_slots'), 8)
    assert.equal(text.value('lorikeet_build_info', { version: '1', revision: 'abc' }), 1)
    assert.equal(text.value('lorikeet_adapter_load_seconds_count', { from: 'disk' }), 1)
    assert.equal(text.value('lorikeet_adapter_load_seconds_sum', { from: 'disk' }), 0.02)
  })

  it('are told to routers in one series, of running ones or of all on the device', async () => {
    scene.adapters = [listed('z', { state: 'active' }), listed('a', { state: 'pinned' }), listed('c')]
    scene.snapshot = { ...IDLE, numRunning: 1, numWaiting: 2, runningAdapters: ['a'], waitingAdapters: ['q', 'b'] }
    for (const [loraInfo, running] of [
      ['running', 'a'],
      ['resident', 'a,z'],
    ] as const) {
      const [sample, ...others] = new MetricsText(await create(loraInfo).text()).samples('vllm:lora_requests_info')
      assert.deepEqual(others, [])
      assert.deepEqual(sample?.labels, { max_lora: '8', waiting_lora_adapters: 'b,q', running_lora_adapters: running })
      assert.ok(Math.abs(sample.value - Date.now() / 1000) < 60, 'the value is the time')
    }
  })
})

describe('text families', () => {
  it('count a value in the bucket it equals, and escape labels', () => {
    const info = { name: 'h', type: 'histogram', help: 'x', labelNames: ['adapter'] } as const
    const family = TextFamily.distribution(info, [1, 2])
    const adapter = 'a"b\\c\nd'
    const series = family.series({ adapter })
    for (const value of [0, 1, 1.5, 2, 3]) series.observe(value)
    series.observe(10, 3)
    const text = new MetricsText(family.text())
    assert.deepEqual(
      text.samples('h_bucket', { adapter }).map(({ labels, value }) => [labels['le'], value]),
      [
        ['1.0', 2],
        ['2.0', 4],
        ['+Inf', 8],
      ],
    )
    assert.equal(text.value('h_sum'), 37.5)
    assert.equal(text.value('h_count'), 8)
    family.drop(series)
    assert.equal(family.text(), '')
  })
})

describe('recent throughput', () => {
  it('is the growth over the last seconds, and zero when idle', () => {
    const window = new ThroughputWindow()
    assert.equal(window.rate(0, 100), 0)
    assert.equal(window.rate(2000, 300), 100)
    assert.equal(window.rate(4000, 300), 50)
    for (let atMs = 5000; atMs <= 30_000; atMs += 50) window.rate(atMs, 300)
    assert.equal(window.rate(30_050, 300), 0)
    assert.equal(window.rate(40_000, 600), 30, 'since the last scrape, ten seconds ago')
    assert.equal(window.rate(41_000, 5), 0, 'a restarted engine counts from zero')
  })
})
