// What goes into the result beside the measurements: how the run was set up, on what, from which sources.
import { spawnSync } from 'node:child_process'
import { availableParallelism, cpus, totalmem } from 'node:os'
import { LorikeetError } from '../src/errors.ts'
import type { LoadResult } from './client/run-load.ts'
import type { ServerInfo } from './client/server-info.ts'
import type { RunFacts } from './metrics/bench-result.ts'
import type { Slo } from './metrics/serve-summary.ts'
import type { BenchOptions } from './options.ts'
import type { WorkloadOptions } from './workload/plan-requests.ts'
import { chooseArrival, rateOf } from './workload/workload-options.ts'

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

export function runFacts(
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
