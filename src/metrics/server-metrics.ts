// Prometheus families: vLLM's names where dashboards and routers read them, own ones for the rest. One series each, from the start.
// Engine gauges and totals are copied from the latest snapshot at scrape time; only histograms cost anything per request.

import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'

/** What is read of an engine snapshot. */
export interface MetricsSnapshot {
  readonly numRunning: number
  readonly numWaiting: number
  readonly numWaitingForAdapter: number
  readonly numBlocks: number
  readonly numUsedBlocks: number
  readonly numPreemptions: number
  readonly numPrefixQueryTokens: number
  readonly numPrefixHitTokens: number
  readonly numPromptTokens: number
  readonly numGenerationTokens: number
  readonly runningAdapters: readonly string[]
  readonly waitingAdapters: readonly string[]
}

/** Times of one sequence, epoch milliseconds. */
export interface RequestTimes {
  readonly arrivedAtMs: number
  readonly firstTokenAtMs: number | null
  readonly finishedAtMs: number
  readonly numPromptTokens: number
  readonly numOutputTokens: number
}

export interface StepTimes {
  readonly numTokens: number
  readonly scheduleMs: number
  readonly executeMs: number
  readonly sampleMs: number
  readonly updateMs: number
}

export interface ServerMetricsOptions {
  /** First served base name; never an adapter. */
  readonly modelName: string
  readonly version: string
  readonly blockSize: number
  readonly numBlocks: number
  readonly maxModelLen: number
  readonly dtype: string
  readonly isPrefixCachingEnabled: boolean
  readonly maxAdapters: number
  readonly snapshot: () => MetricsSnapshot
}

// vLLM's buckets, kept as they are so that dashboards can add servers up by `le`.
const TTFT_BUCKETS_S = [
  0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
]
const TPOT_BUCKETS_S = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80]
const LATENCY_BUCKETS_S = [0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680]
// Steps of small models on a CPU take a millisecond, of large ones on a GPU tens.
const STEP_BUCKETS_S = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5]
const ITERATION_BUCKETS = [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384]

type BoundHistogram = Histogram.Internal<string>

const FINISH_REASONS = ['stop', 'length', 'abort', 'error', 'repetition'] as const
const STEP_PHASES = ['schedule', 'execute', 'sample', 'update'] as const

// Pickers scrape every 50 ms, and several may; text this old is as good as fresh.
const TEXT_TTL_MS = 10

export class ServerMetrics {
  readonly contentType = Registry.PROMETHEUS_CONTENT_TYPE
  readonly #registry = new Registry()
  readonly #labels: { readonly model_name: string; readonly engine: string }
  readonly #options: ServerMetricsOptions
  readonly #success: Counter
  readonly #ttft: BoundHistogram
  readonly #tpot: BoundHistogram
  readonly #latency: BoundHistogram
  readonly #promptTokens: BoundHistogram
  readonly #generationTokens: BoundHistogram
  readonly #iterationTokens: BoundHistogram
  readonly #stepPhases: Readonly<Record<(typeof STEP_PHASES)[number], BoundHistogram>>
  #text: Promise<string> | null = null
  #textAtMs = 0

  constructor(options: ServerMetricsOptions) {
    this.#options = options
    this.#labels = { model_name: options.modelName, engine: '0' }
    collectDefaultMetrics({ register: this.#registry })
    this.#registerSnapshotFamilies()
    this.#registerConstants()
    this.#success = this.#counter('vllm:request_success_total', 'Finished sequences by reason.', ['finished_reason'])
    for (const reason of FINISH_REASONS) this.#success.inc({ ...this.#labels, finished_reason: reason }, 0)
    this.#ttft = this.#histogram('vllm:time_to_first_token_seconds', 'Arrival to first token.', TTFT_BUCKETS_S)
    this.#tpot = this.#histogram('vllm:request_time_per_output_token_seconds', 'Mean time of later tokens.', TPOT_BUCKETS_S)
    this.#latency = this.#histogram('vllm:e2e_request_latency_seconds', 'Arrival to last token.', LATENCY_BUCKETS_S)
    const counts = tokenBuckets(options.maxModelLen)
    this.#promptTokens = this.#histogram('vllm:request_prompt_tokens', 'Prompt tokens.', counts)
    this.#generationTokens = this.#histogram('vllm:request_generation_tokens', 'Output tokens.', counts)
    this.#iterationTokens = this.#histogram('vllm:iteration_tokens_total', 'Tokens of a step.', ITERATION_BUCKETS)
    this.#stepPhases = this.#registerStepPhases()
  }

  /** Prometheus text format 0.0.4. */
  text(): Promise<string> {
    const nowMs = performance.now()
    if (this.#text === null || nowMs - this.#textAtMs > TEXT_TTL_MS) {
      this.#text = this.#registry.metrics()
      this.#textAtMs = nowMs
    }
    return this.#text
  }

  observeRequest(finishedReason: (typeof FINISH_REASONS)[number], times: RequestTimes): void {
    const { arrivedAtMs, firstTokenAtMs, finishedAtMs, numPromptTokens, numOutputTokens } = times
    this.#success.inc({ ...this.#labels, finished_reason: finishedReason })
    if (firstTokenAtMs !== null) {
      this.#ttft.observe((firstTokenAtMs - arrivedAtMs) / 1000)
      if (numOutputTokens > 1) this.#tpot.observe((finishedAtMs - firstTokenAtMs) / 1000 / (numOutputTokens - 1))
    }
    this.#latency.observe((finishedAtMs - arrivedAtMs) / 1000)
    this.#promptTokens.observe(numPromptTokens)
    this.#generationTokens.observe(numOutputTokens)
  }

  observeStep(step: StepTimes): void {
    this.#iterationTokens.observe(step.numTokens)
    this.#stepPhases.schedule.observe(step.scheduleMs / 1000)
    this.#stepPhases.execute.observe(step.executeMs / 1000)
    this.#stepPhases.sample.observe(step.sampleMs / 1000)
    this.#stepPhases.update.observe(step.updateMs / 1000)
  }

  #registerSnapshotFamilies(): void {
    const { snapshot } = this.#options
    this.#snapshotGauge('vllm:num_requests_running', 'Requests in the running batch.', (s) => s.numRunning)
    this.#snapshotGauge('vllm:num_requests_waiting', 'Requests in the queue.', (s) => s.numWaiting)
    this.#snapshotGauge('vllm:kv_cache_usage_perc', 'Used share of the KV blocks, 0 to 1.', kvUsage)
    this.#snapshotCounter('vllm:prompt_tokens_total', 'Prompt tokens processed.', (s) => s.numPromptTokens)
    this.#snapshotCounter('vllm:generation_tokens_total', 'Tokens generated.', (s) => s.numGenerationTokens)
    this.#snapshotCounter('vllm:num_preemptions_total', 'Preemptions.', (s) => s.numPreemptions)
    this.#snapshotCounter('vllm:prefix_cache_queries_total', 'Tokens looked up in the cache.', (s) => s.numPrefixQueryTokens)
    this.#snapshotCounter('vllm:prefix_cache_hits_total', 'Tokens found in the cache.', (s) => s.numPrefixHitTokens)
    const labels = this.#labels
    new Gauge({
      name: 'vllm:num_requests_waiting_by_reason',
      help: 'Queued requests by what they wait for.',
      labelNames: ['model_name', 'engine', 'reason'],
      registers: [this.#registry],
      collect() {
        const { numWaiting, numWaitingForAdapter } = snapshot()
        this.set({ ...labels, reason: 'capacity' }, numWaiting - numWaitingForAdapter)
        this.set({ ...labels, reason: 'deferred' }, numWaitingForAdapter)
      },
    })
    const maxAdapters = String(this.#options.maxAdapters)
    new Gauge({
      name: 'vllm:lora_requests_info',
      help: 'Adapters of running and waiting requests; the value is the time of the scrape.',
      labelNames: ['max_lora', 'waiting_lora_adapters', 'running_lora_adapters'],
      registers: [this.#registry],
      collect() {
        const { runningAdapters, waitingAdapters } = snapshot()
        // Readers take the newest of several series: one is left.
        this.reset()
        const lists = {
          waiting_lora_adapters: [...waitingAdapters].sort().join(','),
          running_lora_adapters: [...runningAdapters].sort().join(','),
        }
        this.set({ max_lora: maxAdapters, ...lists }, Date.now() / 1000)
      },
    })
  }

  #registerConstants(): void {
    const { blockSize, numBlocks, maxModelLen, dtype, isPrefixCachingEnabled, version } = this.#options
    const info = {
      block_size: String(blockSize),
      num_gpu_blocks: String(numBlocks),
      cache_dtype: dtype,
      enable_prefix_caching: isPrefixCachingEnabled ? 'True' : 'False',
      gpu_memory_utilization: '1.0',
      kv_cache_size_tokens: String(numBlocks * blockSize),
      kv_cache_max_concurrency: String((numBlocks * blockSize) / maxModelLen),
      engine: '0',
    }
    this.#constant('vllm:cache_config_info', 'Shape of the KV cache.', info)
    this.#constant('lorikeet_build_info', 'What runs.', { version })
  }

  #registerStepPhases(): Record<(typeof STEP_PHASES)[number], BoundHistogram> {
    const histogram = new Histogram({
      name: 'lorikeet_step_seconds',
      help: 'Time of an engine step by phase.',
      labelNames: ['phase'],
      buckets: STEP_BUCKETS_S,
      registers: [this.#registry],
    })
    for (const phase of STEP_PHASES) histogram.zero({ phase })
    const { schedule, execute, sample, update } = Object.fromEntries(
      STEP_PHASES.map((phase) => [phase, histogram.labels({ phase })]),
    ) as Record<(typeof STEP_PHASES)[number], BoundHistogram>
    return { schedule, execute, sample, update }
  }

  #snapshotGauge(name: string, help: string, read: (snapshot: MetricsSnapshot) => number): void {
    const { snapshot } = this.#options
    const labels = this.#labels
    new Gauge({
      name,
      help,
      labelNames: ['model_name', 'engine'],
      registers: [this.#registry],
      collect() {
        this.set(labels, read(snapshot()))
      },
    })
  }

  /** The engine keeps the running total; a counter can only be raised, so it starts over at each scrape. */
  #snapshotCounter(name: string, help: string, read: (snapshot: MetricsSnapshot) => number): void {
    const { snapshot } = this.#options
    const labels = this.#labels
    new Counter({
      name,
      help,
      labelNames: ['model_name', 'engine'],
      registers: [this.#registry],
      collect() {
        this.reset()
        this.inc(labels, read(snapshot()))
      },
    })
  }

  #counter(name: string, help: string, extraLabels: readonly string[]): Counter {
    return new Counter({ name, help, labelNames: ['model_name', 'engine', ...extraLabels], registers: [this.#registry] })
  }

  #histogram(name: string, help: string, buckets: number[]): BoundHistogram {
    const histogram = new Histogram({
      name,
      help,
      labelNames: ['model_name', 'engine'],
      buckets,
      registers: [this.#registry],
    })
    histogram.zero(this.#labels)
    return histogram.labels(this.#labels)
  }

  #constant(name: string, help: string, labels: Record<string, string>): void {
    const gauge = new Gauge({ name, help, labelNames: Object.keys(labels), registers: [this.#registry] })
    gauge.set(labels, 1)
  }
}

function kvUsage({ numUsedBlocks, numBlocks }: MetricsSnapshot): number {
  return numBlocks === 0 ? 0 : numUsedBlocks / numBlocks
}

/** 1, 2 and 5 times powers of ten, up to the longest sequence. */
function tokenBuckets(maxModelLen: number): number[] {
  const buckets: number[] = []
  for (let power = 1; power <= maxModelLen; power *= 10) {
    for (const digit of [1, 2, 5]) if (digit * power <= maxModelLen) buckets.push(digit * power)
  }
  return buckets
}
