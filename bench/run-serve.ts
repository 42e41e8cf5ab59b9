// One measured run against a server: learn about it, warm up, send the load, build the result.
import { spawnSync } from 'node:child_process'
import { availableParallelism, cpus, totalmem } from 'node:os'
import { LorikeetError } from '../src/errors.ts'
import { chooseProgress, ProgressDisplay } from './client/progress-display.ts'
import { createProgress, type LoadOptions, type LoadProgress, type LoadResult, runLoad } from './client/run-load.ts'
import { readQueue, readServerInfo, type ServerInfo, tokenize, waitUntilReady } from './client/server-info.ts'
import { createTarget, fetchText, type Target } from './client/target.ts'
import { type BenchResult, buildResult, type RunFacts } from './metrics/bench-result.ts'
import type { Slo } from './metrics/serve-summary.ts'
import type { QueueSample } from './metrics/timeline.ts'
import type { BenchOptions } from './options.ts'
import { planRequests, type WorkloadOptions } from './workload/plan-requests.ts'
import { chooseArrival, rateOf, workloadOptions } from './workload/workload-options.ts'

/** Time between the end of preparation and the first offset, so that the first requests are not late. */
const START_DELAY_MS = 100

const SCRAPE_INTERVAL_MS = 1000

/** Requests the warm-up has in flight: enough to be quick, few enough to load nothing. */
const WARMUP_CONCURRENCY = 8
const WARMUP_TOKENS = 2

export interface ServeContext {
  readonly target: Target
  readonly server: ServerInfo
}

/** Waits for the server and asks what the run needs to know. */
export async function openServer(options: BenchOptions, signal: AbortSignal): Promise<ServeContext> {
  const target = createTarget(options['base-url'], options['api-key'])
  await waitUntilReady(target, options['ready-timeout'], signal)
  const server = await readServerInfo(target, {
    model: options.model,
    promptFormat: options['prompt-format'],
    isChat: options.endpoint.includes('chat'),
  })
  return { target, server }
}

/** Plans, warms up, runs and measures. Ends early when the signal is aborted; the result then says so. */
export async function runServe(options: BenchOptions, context: ServeContext, signal: AbortSignal): Promise<BenchResult> {
  const { target, server } = context
  const workload = await workloadOptions(options, server, async (text) => {
    const ids = await tokenize(target, server.baseModel, text)
    return ids === null ? Math.ceil(text.length / 4) : ids.length
  })
  const warmedUp = await warmUp(options, target, workload)
  const progress = createProgress()
  const numPlanned = workload.numRequests === Number.MAX_SAFE_INTEGER ? null : workload.numRequests
  const display = new ProgressDisplay(() => progress, numPlanned, chooseProgress(options.progress))
  const startEpochMs = performance.timeOrigin + performance.now() + START_DELAY_MS
  const scrape = options.scrape ? new QueueScrape(target, startEpochMs) : null
  try {
    const load = await sendLoad(workload, loadOptions(options, target, signal, startEpochMs, numPlanned), progress)
    return buildResult(load, scrape?.samples ?? [], runFacts(options, server, workload, warmedUp, load), new Date())
  } finally {
    display.stop()
    scrape?.stop()
  }
}

async function sendLoad(workload: WorkloadOptions, options: LoadOptions, progress: LoadProgress): Promise<LoadResult> {
  return await runLoad(planRequests(workload), options, progress)
}

function loadOptions(
  options: BenchOptions,
  target: Target,
  signal: AbortSignal,
  startEpochMs: number,
  numPlanned: number | null,
): LoadOptions {
  return {
    target,
    stream: {
      path: options.endpoint,
      isChat: options.endpoint.includes('chat'),
      keepsText: options['save-detailed'],
      timeoutMs: options['request-timeout'] * 1000,
    },
    maxConcurrency: options['max-concurrency'],
    signal,
    startEpochMs,
    numPlanned,
  }
}

/** One short request per adapter (or one in all): its first load is another subject, measured with `--warmup none`. */
async function warmUp(options: BenchOptions, target: Target, workload: WorkloadOptions): Promise<readonly string[]> {
  if (options.warmup === 'none') return []
  const named = workload.popularity.kind === 'split' ? workload.popularity.shares.map(({ name }) => name) : workload.adapters
  const models = [workload.baseModel, ...(options.warmup === 'each' ? named : [])]
  const waiting = [...models]
  const worker = async (): Promise<void> => {
    for (let model = waiting.shift(); model !== undefined; model = waiting.shift()) {
      const { status, body } = await fetchText(target, 'POST', options.endpoint, warmUpBody(workload, model), 120_000)
      if (status !== 200) {
        throw new LorikeetError('BENCH_FAILED', {
          reason: `the warm-up request for ${model} got ${status === 0 ? 'no answer' : `status ${status}`}: ${body.slice(0, 300)}`,
        })
      }
    }
  }
  await Promise.all(Array.from({ length: Math.min(WARMUP_CONCURRENCY, models.length) }, worker))
  return options.warmup === 'each' ? named : []
}

function warmUpBody(workload: WorkloadOptions, model: string): unknown {
  const { tokenPool } = workload.prompts
  const prompt = tokenPool.length > 0 ? tokenPool.slice(0, 4) : 'one two three four'
  if (!workload.isChat) return { model, prompt, max_tokens: WARMUP_TOKENS, temperature: 0 }
  return { model, messages: [{ role: 'user', content: 'one two three four' }], max_completion_tokens: WARMUP_TOKENS }
}

/** Reads the server's queue gauges once a second beside the run. */
class QueueScrape {
  readonly samples: QueueSample[] = []
  readonly #timer: NodeJS.Timeout

  constructor(target: Target, startEpochMs: number) {
    this.#timer = setInterval(() => {
      const timeS = (performance.timeOrigin + performance.now() - startEpochMs) / 1000
      void readQueue(target).then((queue) => {
        if (queue === null) this.stop()
        else this.samples.push({ timeS, ...queue })
      })
    }, SCRAPE_INTERVAL_MS)
    this.#timer.unref()
  }

  stop(): void {
    clearInterval(this.#timer)
  }
}

/** vLLM's `--goodput ttft:200 tpot:50`, in ms. */
export function parseSlo(pairs: readonly string[]): Slo {
  const slo: { ttftMs: number | null; tpotMs: number | null; e2elMs: number | null } = {
    ttftMs: null,
    tpotMs: null,
    e2elMs: null,
  }
  for (const pair of pairs) {
    const [name = '', limit] = pair.split(':')
    const ms = Number(limit)
    if (!(ms > 0) || !['ttft', 'tpot', 'e2el'].includes(name)) {
      throw new LorikeetError('CONFIG_INVALID', { option: '--goodput', reason: `${pair}: use ttft:MS, tpot:MS or e2el:MS` })
    }
    slo[`${name as 'ttft' | 'tpot' | 'e2el'}Ms`] = ms
  }
  return slo
}

const DEFAULT_PERCENTS = [50, 90, 95, 99]

export function parsePercents(given: readonly string[]): readonly number[] {
  if (given.length === 0) return DEFAULT_PERCENTS
  return given.map((text) => {
    const percent = Number(text)
    if (!(percent > 0 && percent < 100)) {
      throw new LorikeetError('CONFIG_INVALID', { option: '--metric-percentiles', reason: `${text} is not between 0 and 100` })
    }
    return percent
  })
}

function parseMetadata(pairs: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    pairs.map((pair) => {
      const split = pair.indexOf('=')
      if (split < 1) throw new LorikeetError('CONFIG_INVALID', { option: '--metadata', reason: `${pair}: use KEY=VALUE` })
      return [pair.slice(0, split), pair.slice(split + 1)]
    }),
  )
}

function runFacts(
  options: BenchOptions,
  server: ServerInfo,
  workload: WorkloadOptions,
  warmedUp: readonly string[],
  load: LoadResult,
): RunFacts {
  const arrival = chooseArrival(options)
  const ramp = options['ramp-up-strategy']
  return {
    label: options.label,
    endpointType: workload.isChat ? 'openai-chat' : 'openai',
    modelId: server.baseModel,
    numPrompts: options['num-prompts'] ?? load.records.length,
    metadata: parseMetadata(options.metadata),
    requestRate:
      arrival === 'closed'
        ? null
        : arrival === 'burst'
          ? Number.POSITIVE_INFINITY
          : arrival === 'trace'
            ? options['request-rate']
            : rateOf(options),
    burstiness: 'kind' in workload.arrival ? 1 : workload.arrival.burstiness,
    maxConcurrency: options['max-concurrency'],
    ramp:
      ramp === null
        ? null
        : { strategy: ramp, startRps: options['ramp-up-start-rps'] ?? 0, endRps: options['ramp-up-end-rps'] ?? 0 },
    slo: parseSlo(options.goodput),
    percents: parsePercents(options['metric-percentiles']),
    residentAdapters: options['resident-adapters'],
    warmedUp,
    setup: setupFacts(options, server, workload, arrival),
    savesDetails: options['save-detailed'],
  }
}

function setupFacts(
  options: BenchOptions,
  server: ServerInfo,
  workload: WorkloadOptions,
  arrival: string,
): Readonly<Record<string, unknown>> {
  const { dataset } = workload
  return {
    arrival,
    dataset: options.dataset,
    dataset_path: dataset.trace?.file.split('/').at(-1) ?? null,
    window: options.window,
    time_scale: options['time-scale'],
    length_scale: options['length-scale'],
    input_len: options['input-len'],
    output_len: options['output-len'],
    prefix_len: options['prefix-len'],
    adapter_popularity:
      workload.popularity.kind === 'split'
        ? options['adapter-popularity']
        : (options['adapter-popularity'] ?? workload.popularity.kind),
    num_adapters: workload.adapters.length,
    base_share: options['base-share'],
    warmup: options.warmup,
    seed: options.seed,
    sampling: workload.sampling,
    max_model_len: dataset.maxModelLen,
    prompt_tokens_from: server.tokenSource,
    server: { url: options['base-url'], version: server.version, command: options['start-server'] },
    client: {
      node: process.version,
      cpu: cpus()[0]?.model ?? 'unknown',
      threads: availableParallelism(),
      memory_bytes: totalmem(),
      processes: options['client-processes'],
      revision: revision(),
    },
  }
}

/** The commit of this checkout, or null in an installed package. */
function revision(): string | null {
  const { status, stdout } = spawnSync('git', ['rev-parse', '--short', 'HEAD'], { encoding: 'utf8', timeout: 2000 })
  return status === 0 ? stdout.trim() : null
}
