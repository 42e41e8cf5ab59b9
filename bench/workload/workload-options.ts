// From flags and what the server said to a workload: every default that depends on another choice is made here, once.
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { LorikeetError } from '../../src/errors.ts'
import { type ServerInfo, tokenize } from '../client/server-info.ts'
import type { Target } from '../client/target.ts'
import type { BenchOptions } from '../options.ts'
import { MOONCAKE_BLOCK_TOKENS } from '../readers/json-lines.ts'
import { parseWindow, type TraceFormat } from '../readers/read-trace.ts'
import { burstinessOfCv } from './arrivals.ts'
import { parseLengthLaw, randomRangeLaw } from './lengths.ts'
import { type DatasetOptions, WHOLE, type WorkloadOptions } from './plan-requests.ts'
import { type PopularityLaw, parsePopularity, parseSplit } from './popularity.ts'

/** Traces that bring their own times. */
const TIMED: ReadonlySet<string> = new Set([
  'azure-llm',
  'azure-functions-2019',
  'azure-functions-2021',
  'servegen',
  'mooncake',
  'burstgpt',
  'jsonl',
])

/** Traces whose requests carry what an adapter can stand for. */
const KEYED: ReadonlySet<string> = new Set(['azure-functions-2019', 'azure-functions-2021', 'servegen'])

const SAMPLES: Readonly<Partial<Record<TraceFormat, string>>> = {
  'azure-llm': 'azure-llm-2023-conv.csv.gz',
  'azure-functions-2019': 'azure-functions-2019-hour.csv.gz',
  'sharegpt-lengths': 'sharegpt-lengths.csv.gz',
  servegen: 'servegen-m-small_clients.csv',
  mooncake: 'mooncake-conversation-1000.jsonl.gz',
}

const DEFAULT_NUM_PROMPTS = 1000

/** Requests a second when an open-loop process is asked for without a rate: an easy load for a laptop and the demo model. */
const DEFAULT_RATE_RPS = 5

/** vLLM's `random` data set has 1024 and 128; both are cut to the served context. */
const DEFAULT_INPUT_LEN = 1024
const DEFAULT_OUTPUT_LEN = 128

const bad = (option: string, reason: string): LorikeetError => new LorikeetError('CONFIG_INVALID', { option, reason })

export async function workloadOptions(
  options: BenchOptions,
  server: ServerInfo,
  countTokens: WorkloadOptions['countTokens'],
): Promise<WorkloadOptions> {
  const arrivalKind = chooseArrival(options)
  const isTimed = arrivalKind === 'trace'
  const numRequests = options['num-prompts'] ?? (isTimed ? Number.MAX_SAFE_INTEGER : DEFAULT_NUM_PROMPTS)
  const dataset = datasetOptions(options, server)
  const popularity = await popularityLaw(options, isTimed)
  return {
    dataset,
    numRequests,
    arrival: isTimed
      ? { kind: 'trace', rate: options['request-rate'] }
      : {
          rate: arrivalKind === 'closed' || arrivalKind === 'burst' ? Number.POSITIVE_INFINITY : rateOf(options),
          burstiness: burstinessOf(options, arrivalKind),
          numRequests,
          normalize: options['normalize-arrivals'],
          ramp: rampOf(options),
          seed: options.seed,
        },
    popularity,
    shuffleAdapters: options['shuffle-adapters'],
    adapters: chooseAdapters(options, server),
    baseShare: options['base-share'],
    baseModel: server.baseModel,
    prompts: {
      tokenPool: server.tokenPool,
      seed: options.seed,
      sharedPrefixLen: options['prefix-len'],
      numPrefixes: options['num-prefixes'],
      blockTokens: Math.max(1, Math.round(MOONCAKE_BLOCK_TOKENS * options['length-scale'])),
    },
    isChat: options.endpoint.includes('chat'),
    sampling: samplingFields(options),
    seed: options.seed,
    shard: WHOLE,
    buildsBodies: true,
    countTokens,
  }
}

/** English text has about four characters a token; used only where the server cannot count. */
const CHARS_PER_TOKEN = 4

/** Counts by the served tokenizer. */
export function tokenCounter(target: Target, server: ServerInfo): (text: string) => Promise<number> {
  return async (text) => {
    const ids = server.tokenSource === 'tokenize' ? await tokenize(target, server.baseModel, text) : null
    return ids === null ? Math.ceil(text.length / CHARS_PER_TOKEN) : ids.length
  }
}

export type ArrivalKind = NonNullable<BenchOptions['arrival']>

/** A closed loop is told by its concurrency, everything else by its rate; a rate of inf is a burst. */
export function chooseArrival(options: BenchOptions): ArrivalKind {
  const { arrival, dataset } = options
  if (arrival === 'trace' && !TIMED.has(dataset)) throw bad('--arrival', `${dataset} has no times to replay`)
  if (arrival === 'closed' && options['max-concurrency'] === null) throw bad('--arrival', 'closed needs --max-concurrency')
  if (arrival === 'closed' && options['request-rate'] !== null) throw bad('--request-rate', 'a closed loop has no rate')
  if (arrival !== null) return arrival
  if (options['ramp-up-strategy'] !== null) return 'poisson'
  if (TIMED.has(dataset)) return 'trace'
  if (options['request-rate'] === Number.POSITIVE_INFINITY) return 'burst'
  if (options['request-rate'] === null && options['max-concurrency'] !== null) return 'closed'
  return options.cv !== null || options.burstiness !== 1 ? 'gamma' : 'poisson'
}

/** The offered rate of an open-loop process, requests a second. */
export function rateOf(options: BenchOptions): number {
  return options['request-rate'] ?? DEFAULT_RATE_RPS
}

function burstinessOf(options: BenchOptions, kind: ArrivalKind): number {
  if (kind === 'constant' || options.cv === 0) return Number.POSITIVE_INFINITY
  if (kind === 'poisson') return 1
  return options.cv === null ? options.burstiness : burstinessOfCv(options.cv)
}

function rampOf(options: BenchOptions): { shape: 'linear' | 'exponential'; from: number; to: number } | null {
  const shape = options['ramp-up-strategy']
  if (shape === null) return null
  const [from, to] = [options['ramp-up-start-rps'], options['ramp-up-end-rps']]
  if (from === null || to === null) throw bad('--ramp-up-strategy', 'needs --ramp-up-start-rps and --ramp-up-end-rps')
  return { shape, from, to }
}

function datasetOptions(options: BenchOptions, server: ServerInfo): DatasetOptions {
  const { dataset } = options
  const lengthLaw = (given: string | null, fallback: number, option: string) => {
    const law = parseLengthLaw(given ?? String(fallback), option)
    return law.kind === 'fixed' ? randomRangeLaw(law.tokens, options['range-ratio']) : law
  }
  const view = {
    ...parseWindow(options.window),
    timeScale: options['time-scale'],
    maxRecords: Number.MAX_SAFE_INTEGER,
    filter: dataset === 'sharegpt' || dataset === 'sharegpt-lengths' ? options.filter : ('none' as const),
  }
  return {
    trace: dataset === 'random' ? null : { format: dataset, file: options['dataset-path'] ?? sampleFile(dataset), view },
    inputLaw: lengthLaw(options['input-len'], DEFAULT_INPUT_LEN, '--input-len'),
    outputLaw: lengthLaw(options['output-len'], DEFAULT_OUTPUT_LEN, '--output-len'),
    forceInput: options['input-len'] !== null,
    forceOutput: options['output-len'] !== null,
    lengthScale: options['length-scale'],
    maxModelLen: options['max-model-len'] ?? server.maxModelLen,
    maxModelLenOf: server.maxModelLenOf,
    minuteArrivals: options['minute-arrivals'],
    thin: options.thin,
  }
}

/** The sample that ships with the package: beside the sources, or two folders up from the built files. */
export function sampleFile(format: TraceFormat): string {
  const name = SAMPLES[format]
  if (name === undefined) throw bad('--dataset-path', `${format} has no sample: name your file`)
  let folder = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(folder, 'traces', name))) {
    const parent = dirname(folder)
    if (parent === folder) throw bad('--dataset-path', `the sample traces/${name} is not installed: name your file`)
    folder = parent
  }
  return join(folder, 'traces', name)
}

function chooseAdapters(options: BenchOptions, server: ServerInfo): readonly string[] {
  const asked = options.adapters
  const isAll = asked.length === 0 || (asked.length === 1 && asked[0] === 'all')
  const names = asked.length === 1 && asked[0] === 'none' ? [] : isAll ? server.adapters : asked
  const count = options['num-adapters'] ?? names.length
  if (count > names.length) throw bad('--num-adapters', `${count} asked for and the server lists ${names.length}`)
  return names.slice(0, count)
}

async function popularityLaw(options: BenchOptions, isTimed: boolean): Promise<PopularityLaw> {
  const given = options['adapter-popularity'] ?? (isTimed && KEYED.has(options.dataset) ? 'trace' : 'uniform')
  if (!given.startsWith('split:')) return parsePopularity(given)
  const file = given.slice('split:'.length)
  const json = await readFile(file, 'utf8').catch(() => {
    throw bad('--adapter-popularity', `${file}: cannot be read`)
  })
  return parseSplit(json, file)
}

function samplingFields(options: BenchOptions): Readonly<Record<string, unknown>> {
  const extra = options['extra-body']
  let more: unknown = {}
  try {
    more = extra === null ? {} : JSON.parse(extra)
  } catch {
    throw bad('--extra-body', 'is not JSON')
  }
  if (typeof more !== 'object' || more === null || Array.isArray(more)) throw bad('--extra-body', 'must be a JSON object')
  return { temperature: options.temperature, ...(options['ignore-eos'] ? { ignore_eos: true } : {}), ...more }
}
