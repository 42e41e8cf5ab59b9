// `lorikeet trace`: looks at a trace, converts any format to JSON lines, or generates one. Seeded: the same flags, the same file.
import { createWriteStream } from 'node:fs'
import type { Writable } from 'node:stream'
import { finished } from 'node:stream/promises'
import { LorikeetError } from '../src/errors.ts'
import type { ServerInfo } from './client/server-info.ts'
import { formatMs } from './metrics/format-result.ts'
import { type BenchOptions, formatHelp, parseOptions } from './options.ts'
import { formatOwnTrace } from './readers/json-lines.ts'
import { parseWindow, readTrace, viewTrace } from './readers/read-trace.ts'
import { type TraceRecord, traceRecord } from './readers/trace-record.ts'
import { type TraceStats, traceStats } from './trace-stats.ts'
import { planRequests } from './workload/plan-requests.ts'
import { sampleFile, workloadOptions } from './workload/workload-options.ts'

const USAGE = `lorikeet trace: look at, convert and generate traces.

  lorikeet trace stats    --dataset FORMAT [--dataset-path FILE]   count, span, rate, burstiness, lengths
  lorikeet trace convert  --dataset FORMAT [--dataset-path FILE]   as JSON lines, with --window, --time-scale, --thin ...
  lorikeet trace generate --request-rate R --num-prompts N ...     from the arrival, popularity and length laws

JSON lines go to --save-result FILE or to stdout; read them back with --dataset jsonl. One line is a request:
{"t": seconds, "input": tokens, "output": tokens, "key": adapter}. The workload flags are those of lorikeet bench.
`

export async function runTrace(args: readonly string[]): Promise<number> {
  const { options, positionals, given } = parseOptions(args)
  const [mode] = positionals
  if (options.help || mode === undefined) {
    process.stdout.write(`${USAGE}${options.help ? formatHelp() : ''}\n`)
    return mode === undefined && !options.help ? 1 : 0
  }
  if (mode === 'stats')
    process.stdout.write(
      `${formatStats(await traceStats(options.dataset === 'random' ? records(options) : wholeFile(options, given.has('filter'))))}\n`,
    )
  else if (mode === 'convert' || mode === 'generate')
    await writeRecords(records(mode === 'generate' ? generated(options) : options), options)
  else throw new LorikeetError('CONFIG_INVALID', { option: mode, reason: 'the modes are stats, convert and generate' })
  return 0
}

/** Synthetic adapters of a generated trace are numbered; a replay maps them to real ones in order of appearance. */
function generated(options: BenchOptions): BenchOptions {
  if (options.dataset !== 'random' || options.adapters.length > 0) return options
  const count = options['num-adapters'] ?? 1
  return { ...options, adapters: Array.from({ length: count }, (_, index) => `adapter-${index}`) }
}

/** No server is asked: lengths are as in the trace, nothing is cut to a context unless --max-model-len says so. */
const NO_SERVER: ServerInfo = {
  baseModel: 'base',
  adapters: [],
  maxModelLen: null,
  maxModelLenOf: {},
  tokenPool: [],
  tokenSource: 'words',
  version: null,
}

/** What the file holds, not what a run would take of it: no filter, no sampling, nothing cut. */
function wholeFile(options: BenchOptions, isFiltered: boolean): AsyncIterable<TraceRecord> {
  const { dataset, seed } = options
  if (dataset === 'random') return records(options)
  const reader = readTrace(dataset, options['dataset-path'] ?? sampleFile(dataset), {
    seed,
    minuteArrivals: options['minute-arrivals'],
    sampleSize: options['num-prompts'] ?? Number.MAX_SAFE_INTEGER,
  })
  return viewTrace(reader, {
    ...parseWindow(options.window),
    timeScale: options['time-scale'],
    maxRecords: options['num-prompts'] ?? Number.MAX_SAFE_INTEGER,
    filter: isFiltered ? options.filter : 'none',
  })
}

async function* records(options: BenchOptions): AsyncGenerator<TraceRecord> {
  const workload = await workloadOptions(options, NO_SERVER, async (text) => Math.ceil(text.length / 4))
  for await (const planned of planRequests({ ...workload, buildsBodies: false })) {
    yield traceRecord({
      timeS: planned.offsetS,
      inputLen: planned.inputLen,
      outputLen: planned.outputLen,
      key: planned.adapter ?? planned.traceKey,
      blockIds: planned.blockIds,
    })
  }
}

async function writeRecords(source: AsyncIterable<TraceRecord>, options: BenchOptions): Promise<void> {
  const file = options['save-result']
  const out: Writable = file === null ? process.stdout : createWriteStream(file)
  for await (const record of source) {
    if (!out.write(`${formatOwnTrace(record)}\n`)) await new Promise<void>((resolve) => out.once('drain', () => resolve()))
  }
  if (file === null) return
  out.end()
  await finished(out)
}

function formatStats(stats: TraceStats): string {
  const row = (name: string, value: string): string => `${name.padEnd(22)}${value}`
  const lengths = (name: string, { count, mean, median, percentiles }: TraceStats['input']): string[] =>
    count === 0
      ? []
      : [
          row(
            name,
            `mean ${mean.toFixed(1)}   p50 ${formatMs(median)}   p90 ${formatMs(percentiles['90'] ?? 0)}   p99 ${formatMs(percentiles['99'] ?? 0)}`,
          ),
        ]
  return [
    row('requests', String(stats.count)),
    ...(stats.spanS > 0
      ? [
          row('span', `${stats.spanS.toFixed(1)} s`),
          row('rate', `${stats.rateRps.toFixed(2)} req/s`),
          row('gap CV', stats.gapCv.toFixed(2)),
        ]
      : []),
    ...lengths('input tokens', stats.input),
    ...lengths('output tokens', stats.output),
    ...(stats.numKeys > 0
      ? [row('keys', `${stats.numKeys}, the top 1 % send ${(stats.topPercentShare * 100).toFixed(1)} %`)]
      : []),
    ...(stats.blockReuse > 0 ? [row('blocks seen before', `${(stats.blockReuse * 100).toFixed(1)} %`)] : []),
  ].join('\n')
}
