// Every flag of `lorikeet bench`, in one table: type, default and what it does. vLLM's names where vLLM has the flag.
import { parseArgs } from 'node:util'
import { LorikeetError } from '../src/errors.ts'
import { TRACE_FORMATS } from './readers/read-trace.ts'

interface Flag<Value> {
  readonly group: string
  readonly takes: 'text' | 'switch' | 'many'
  /** Shown in the help; empty for switches. */
  readonly hint: string
  readonly help: string
  readonly fallback: Value
  readonly parse: (text: string, option: string) => Value
}

const bad = (option: string, reason: string): LorikeetError => new LorikeetError('CONFIG_INVALID', { option, reason })

const text = <Value extends string | null>(
  group: string,
  fallback: Value,
  hint: string,
  help: string,
): Flag<string | Value> => ({
  group,
  takes: 'text',
  hint,
  help,
  fallback,
  parse: (given) => given,
})

const number = <Value extends number | null>(
  group: string,
  fallback: Value,
  hint: string,
  help: string,
  check: { readonly min?: number; readonly max?: number; readonly above?: number; readonly whole?: boolean } = {},
): Flag<number | Value> => ({
  group,
  takes: 'text',
  hint,
  help,
  fallback,
  parse: (given, option) => {
    const value = given === 'inf' ? Number.POSITIVE_INFINITY : given.trim() === '' ? Number.NaN : Number(given)
    if (Number.isNaN(value)) throw bad(option, `is not a number: ${given}`)
    if (check.whole === true && !Number.isInteger(value)) throw bad(option, `must be a whole number, got ${given}`)
    if (check.min !== undefined && value < check.min) throw bad(option, `must be at least ${check.min}, got ${given}`)
    if (check.max !== undefined && value > check.max) throw bad(option, `must be at most ${check.max}, got ${given}`)
    if (check.above !== undefined && value <= check.above) throw bad(option, `must be above ${check.above}, got ${given}`)
    return value
  },
})

const choice = <const Names extends readonly string[], Value extends Names[number] | null>(
  group: string,
  names: Names,
  fallback: Value,
  help: string,
): Flag<Names[number] | Value> => ({
  group,
  takes: 'text',
  hint: names.join('|'),
  help,
  fallback,
  parse: (given, option) => {
    if (!names.includes(given)) throw bad(option, `must be one of ${names.join(', ')}, got ${given}`)
    return given
  },
})

const toggle = (group: string, fallback: boolean, help: string): Flag<boolean> => ({
  group,
  takes: 'switch',
  hint: '',
  help,
  fallback,
  parse: () => true,
})

const many = (group: string, hint: string, help: string): Flag<readonly string[]> => ({
  group,
  takes: 'many',
  hint,
  help,
  fallback: [],
  parse: (given) => given.split(',').filter((part) => part !== ''),
})

/** Given once or several times; values may hold commas. */
const repeated = (group: string, hint: string, help: string): Flag<readonly string[]> => ({
  ...many(group, hint, help),
  parse: (given) => [given],
})

export const ARRIVALS = ['poisson', 'gamma', 'constant', 'burst', 'closed', 'trace'] as const

/** In the order of the help. */
export const FLAGS = {
  'base-url': text('Server', 'http://127.0.0.1:8000', 'URL', 'server under test; any OpenAI-compatible one'),
  endpoint: text('Server', '/v1/completions', 'PATH', 'route; a path with "chat" is spoken to as chat'),
  model: text('Server', null, 'NAME', 'base model; default: the first that /v1/models lists without a parent'),
  'api-key': text('Server', process.env['OPENAI_API_KEY'] ?? process.env['LORIKEET_API_KEY'] ?? null, 'KEY', 'bearer key'),
  'start-server': text('Server', null, 'COMMAND', 'start this server first, wait until it is healthy, stop it at the end'),
  'ready-timeout': number('Server', 120, 'S', 'how long to wait for a healthy server', { min: 0 }),
  'request-timeout': number('Server', 600, 'S', 'a request without an end counts as failed', { above: 0 }),

  dataset: choice('Workload', ['random', ...TRACE_FORMATS] as const, 'random', 'where lengths and times come from'),
  'dataset-path': text('Workload', null, 'FILE', 'trace file; default: the sample in traces/'),
  'num-prompts': number('Workload', null, 'N', 'requests; default 1000, or all of a timed trace in its window', {
    min: 1,
    whole: true,
  }),
  window: text('Workload', ':', 'START:END', 'part of a timed trace, in seconds of the trace'),
  'time-scale': number('Workload', 1, 'X', 'replay a timed trace X times faster', { above: 0 }),
  thin: number('Workload', 1, 'P', 'keep this share of a timed trace, drawn by seed', { above: 0, max: 1 }),
  filter: choice('Workload', ['vllm', 'none'] as const, 'vllm', "drop from ShareGPT what vLLM's benchmark drops"),
  'minute-arrivals': choice(
    'Workload',
    ['poisson', 'uniform'] as const,
    'poisson',
    'how per-minute counts spread (Functions 2019)',
  ),
  'input-len': text(
    'Workload',
    null,
    'LAW',
    'prompt tokens: N, uniform:LOW:HIGH, lognormal:SIGMA:LOC:SCALE:MAX; replaces those of a trace',
  ),
  'output-len': text('Workload', null, 'LAW', 'answer tokens, likewise'),
  'range-ratio': number('Workload', 0, 'R', 'a plain N becomes uniform in N(1-R) to N(1+R)', { min: 0, max: 1 }),
  'length-scale': number('Workload', 1, 'X', 'multiply all lengths, to fit a long-context trace to a small model', {
    above: 0,
  }),
  'prefix-len': number('Workload', 0, 'N', 'tokens shared at the head of prompts', { min: 0, whole: true }),
  'num-prefixes': number('Workload', 1, 'N', 'distinct shared prefixes', { min: 1, whole: true }),
  'max-model-len': number('Workload', null, 'N', 'context to fit lengths into; default: what /v1/models says', {
    min: 2,
    whole: true,
  }),
  'prompt-format': choice(
    'Workload',
    ['auto', 'ids', 'text'] as const,
    'auto',
    'token ids are exact; text suits servers that take no ids',
  ),

  arrival: choice(
    'Arrivals',
    ARRIVALS,
    null,
    'default: trace for a timed trace, closed with --max-concurrency alone, else poisson',
  ),
  'request-rate': number('Arrivals', null, 'RPS', 'mean rate, or inf; stretches a timed trace', { above: 0 }),
  burstiness: number('Arrivals', 1, 'B', 'shape of Gamma gaps; 1 = Poisson', { above: 0 }),
  cv: number('Arrivals', null, 'C', 'coefficient of variation of gaps; B = 1/C²', { min: 0 }),
  'normalize-arrivals': toggle('Arrivals', true, 'last arrival at exactly N/rate (vLLM); --no-... as S-LoRA and SGLang'),
  'ramp-up-strategy': choice('Arrivals', ['linear', 'exponential'] as const, null, 'move the rate between the two below'),
  'ramp-up-start-rps': number('Arrivals', null, 'RPS', 'rate of the first request', { above: 0 }),
  'ramp-up-end-rps': number('Arrivals', null, 'RPS', 'rate of the last request', { above: 0 }),
  'max-concurrency': number('Arrivals', null, 'N', 'requests in flight at most', { min: 1, whole: true }),

  adapters: many('Adapters', 'A,B,...', 'adapters to name; "all" (default) = those /v1/models lists, "none" = base only'),
  'num-adapters': number('Adapters', null, 'N', 'use the first N of them', { min: 1, whole: true }),
  'adapter-popularity': text(
    'Adapters',
    null,
    'LAW',
    'uniform, round-robin, power:A, geometric:A, zipf:S, punica-distinct|identical|uniform|skewed, split:FILE, trace',
  ),
  'base-share': number('Adapters', 0, 'P', 'share of requests for the base model', { min: 0, max: 1 }),
  'shuffle-adapters': toggle('Adapters', true, 'popularity rank is not load order'),
  warmup: choice(
    'Adapters',
    ['each', 'one', 'none'] as const,
    'each',
    'one request per adapter before the run, one in all, or none (cold start)',
  ),
  'resident-adapters': number('Adapters', null, 'N', "server's adapter slots: tells cold from warm requests by LRU", {
    min: 1,
    whole: true,
  }),

  temperature: number('Sampling', 0, 'T', 'sent with every request', { min: 0, max: 2 }),
  'ignore-eos': toggle('Sampling', true, 'answers have the full length; --no-... for servers that refuse the field'),
  'extra-body': text('Sampling', null, 'JSON', 'more fields for every request'),
  seed: number('Sampling', 0, 'N', 'of arrivals, adapters, lengths and prompts', { whole: true }),

  goodput: many('Measurement', 'NAME:MS,...', 'limits in ms, of ttft, tpot, e2el'),
  'metric-percentiles': many('Measurement', 'P,...', 'percentiles of the result; default 50,90,95,99'),
  'client-processes': number('Measurement', 1, 'N', 'processes that send', { min: 1, max: 64, whole: true }),
  scrape: toggle('Measurement', true, "read the server's queue gauges once a second"),

  preset: text('Runs', null, 'NAME', 'a published recipe, see `bench presets`'),
  over: repeated('Runs', 'FLAG=A,B,...', 'sweep: run every combination (server.FLAG restarts the server)'),
  'find-max-rate': toggle('Runs', false, 'bisect for the highest rate that meets --goodput'),
  'min-attainment': number('Runs', 0.9, 'P', 'a rate sweep ends below this share within limits', { above: 0, max: 1 }),
  repeat: number('Runs', 1, 'N', 'runs of each setting, seed + 1 each', { min: 1, whole: true }),

  'save-result': text('Output', null, 'FILE', 'result as JSON'),
  'save-detailed': toggle('Output', false, 'add lengths, latencies and texts of every request'),
  report: text('Output', null, 'FILE', 'self-contained HTML report'),
  chart: text('Output', null, 'FILE', 'main chart as SVG'),
  label: text('Output', null, 'TEXT', 'name of the run in results and reports'),
  metadata: repeated('Output', 'KEY=VALUE', 'pairs for the result'),
  json: toggle('Output', false, 'print the result as JSON instead of a table'),
  progress: choice('Output', ['auto', 'bar', 'json', 'none'] as const, 'auto', 'bar on a terminal, JSON lines otherwise'),
  help: toggle('Output', false, 'this page'),
} as const satisfies Record<string, Flag<unknown>>

type FlagName = keyof typeof FLAGS

export type BenchOptions = { readonly [Name in FlagName]: (typeof FLAGS)[Name] extends Flag<infer Value> ? Value : never }

export interface ParsedArgs {
  readonly options: BenchOptions
  readonly positionals: readonly string[]
  /** Flags that were given, by name. */
  readonly given: ReadonlySet<string>
}

/** Reads the command line; an unknown flag or a bad value throws CONFIG_INVALID naming it. */
export function parseOptions(args: readonly string[]): ParsedArgs {
  const config: Record<string, { type: 'string' | 'boolean'; multiple?: boolean }> = {}
  for (const [name, flag] of Object.entries(FLAGS)) {
    config[name] = flag.takes === 'switch' ? { type: 'boolean' } : { type: 'string', multiple: flag.takes === 'many' }
    if (flag.takes === 'switch') config[`no-${name}`] = { type: 'boolean' }
  }
  let parsed: { values: Record<string, unknown>; positionals: string[] }
  try {
    parsed = parseArgs({ args: [...args], options: config, allowPositionals: true })
  } catch (error) {
    const reason = error instanceof Error ? (error.message.split('. ')[0] ?? error.message) : String(error)
    throw bad('bench', `${reason}; see lorikeet bench --help`)
  }
  const values: Record<string, unknown> = {}
  const given = new Set<string>()
  for (const [name, flag] of Object.entries(FLAGS)) {
    const raw = parsed.values[name]
    if (raw !== undefined || parsed.values[`no-${name}`] === true) given.add(name)
    values[name] = flagValue(name, flag, raw, parsed.values[`no-${name}`] === true)
  }
  return { options: values as BenchOptions, positionals: parsed.positionals, given }
}

/** The options of `args` with those given in `more` in their place. */
export function overlayOptions(args: readonly string[], more: readonly string[]): BenchOptions {
  const { options } = parseOptions(args)
  const { options: over, given } = parseOptions(more)
  return { ...options, ...Object.fromEntries(Object.entries(over).filter(([name]) => given.has(name))) }
}

function flagValue(name: string, flag: Flag<unknown>, raw: unknown, isNegated: boolean): unknown {
  if (isNegated) return false
  if (raw === undefined) return flag.fallback
  if (Array.isArray(raw)) return raw.flatMap((part: string) => flag.parse(part, `--${name}`))
  return flag.parse(String(raw), `--${name}`)
}

/** The help, grouped. */
export function formatHelp(): string {
  const lines: string[] = []
  let group = ''
  for (const [name, flag] of Object.entries(FLAGS)) {
    if (flag.group !== group) {
      group = flag.group
      lines.push('', `${group}:`)
    }
    const fallback = flag.takes !== 'many' && flag.fallback !== null && flag.fallback !== false ? ` [${flag.fallback}]` : ''
    const head = `  --${name}${flag.hint === '' ? '' : ` ${flag.hint}`}`
    const isLong = head.length > 34
    lines.push(isLong ? head : `${head.padEnd(36)}${flag.help}${fallback}`)
    if (isLong) lines.push(`${' '.repeat(36)}${flag.help}${fallback}`)
  }
  return lines.join('\n')
}
