// `lorikeet bench`: reads the flags, runs, prints. The load goes over HTTP, so any OpenAI-compatible server can be measured.
import { readFile, writeFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { LorikeetError } from '../src/errors.ts'
import type { BenchResult } from './metrics/bench-result.ts'
import { formatResult } from './metrics/format-result.ts'
import { type BenchOptions, formatHelp, parseOptions } from './options.ts'
import { formatPresets, formatVerdict, runPreset } from './presets/run-preset.ts'
import { mainChart, type NamedResult } from './report/charts.ts'
import { renderReport } from './report/html-report.ts'
import { loadChartLibrary, README_SIZE, renderSvg } from './report/render-svg.ts'
import { Session } from './session.ts'
import { parsePercents, parseSlo } from './setup-facts.ts'
import { findMaxRate, runSweep } from './sweep.ts'

const USAGE = `lorikeet bench: load a server and measure it, open loop.

  lorikeet bench [FLAGS]                      one run, or a sweep with --over, or a recipe with --preset
  lorikeet bench report FILE... --report OUT  HTML report of saved results, compared
  lorikeet bench presets                      the recipes and their pass bars

Inside one process, without HTTP; what follows -- are flags of lorikeet serve:
  lorikeet bench offline [FLAGS] -- --model DIR ...   all requests at once, as vllm bench throughput
  lorikeet bench latency [FLAGS] -- --model DIR ...   one batch of fixed shape, as vllm bench latency
  lorikeet bench kernels [FLAGS] -- --model DIR ...   forward passes of one backend
  lorikeet bench http                                 REST overhead on the null backend (autocannon)

  lorikeet bench --dataset sharegpt-lengths --num-prompts 100 --arrival poisson --request-rate 4
  lorikeet bench --dataset azure-llm --window 0:600 --time-scale 20 --report conv.html
  lorikeet bench --over request-rate=1,2,4,8 --goodput ttft:500,tpot:50 --save-result sweep.json
`

export async function runBench(args: readonly string[]): Promise<number> {
  const { options, positionals } = parseOptions(args)
  const [mode = 'serve', ...files] = positionals
  const inProcess = await runInProcess(mode, options, files)
  if (inProcess !== null) return inProcess
  if (options.help) process.stdout.write(`${USAGE}${formatHelp()}\n`)
  else if (mode === 'presets') process.stdout.write(formatPresets())
  else if (mode === 'report') await writeOutputs(options, await readResults(files), [])
  else if (mode === 'serve') return await runSession(options, args)
  else
    throw new LorikeetError('CONFIG_INVALID', {
      option: mode,
      reason: 'the modes are serve (default), report, presets, offline, latency, kernels and http',
    })
  return 0
}

/** The modes that load the engine into this process; each is imported only when asked for. Null = not one of them. */
async function runInProcess(mode: string, options: BenchOptions, serveArgs: readonly string[]): Promise<number | null> {
  if (options.help) return null
  if (mode === 'http') return await (await import('./modes/http-overhead-mode.ts')).runHttpOverhead(serveArgs)
  if (mode === 'offline') {
    const { formatOffline, runOffline } = await import('./modes/offline.ts')
    return await writeInProcess(options, await runOffline(options, serveArgs), formatOffline)
  }
  if (mode === 'latency') {
    const { formatLatency, runLatency } = await import('./modes/latency.ts')
    return await writeInProcess(options, await runLatency(options, serveArgs), formatLatency)
  }
  if (mode === 'kernels') {
    const { formatKernels, runKernels } = await import('./modes/kernels.ts')
    return await writeInProcess(options, await runKernels(options, serveArgs), formatKernels)
  }
  return null
}

async function writeInProcess<Result>(
  options: BenchOptions,
  result: Result,
  format: (result: Result) => string,
): Promise<number> {
  if (options['save-result'] !== null) await writeFile(options['save-result'], `${JSON.stringify(result, null, 1)}\n`)
  process.stdout.write(options.json ? `${JSON.stringify(result)}\n` : `${format(result)}\n`)
  return 0
}

async function runSession(options: BenchOptions, args: readonly string[]): Promise<number> {
  // Faults of the flags are found before a server is asked for.
  parseSlo(options.goodput)
  const percents = parsePercents(options['metric-percentiles'])
  const interrupt = new AbortController()
  const onSignal = (): void => interrupt.abort()
  process.once('SIGINT', onSignal)
  process.once('SIGTERM', onSignal)
  const say = (line: string): void => {
    process.stderr.write(`${line}\n`)
  }
  const session = new Session(args, interrupt.signal, ({ name, result }) => {
    if (options.json) return
    const title = name === 'run' ? '' : `== ${name} ==\n`
    process.stdout.write(`${title}${formatResult(result, percents)}\n\n`)
  })
  const verdicts: string[] = []
  try {
    if (options.preset !== null) verdicts.push(...(await runPreset(options.preset, options, session)).map(formatVerdict))
    else if (options['find-max-rate']) {
      const rate = await findMaxRate(options, session, say)
      verdicts.push(
        `highest rate with ${options['min-attainment'] * 100} % in time: ${rate === null ? 'none found' : `${rate} req/s`}`,
      )
    } else await runSweep(options, session, say)
  } finally {
    await session.close()
  }
  if (!options.json && verdicts.length > 0) process.stdout.write(`${verdicts.join('\n')}\n`)
  await writeOutputs(options, session.results, verdicts)
  return session.results.every(({ result }) => result.lorikeet.ending === 'completed') ? 0 : 1
}

/** One result is an object as vLLM writes it; several are a list of such. */
async function writeOutputs(
  options: BenchOptions,
  results: readonly NamedResult[],
  verdicts: readonly string[],
): Promise<void> {
  const [only] = results
  const whole = results.length === 1 && only !== undefined ? only.result : results.map(({ result }) => result)
  if (options['save-result'] !== null) await writeFile(options['save-result'], `${JSON.stringify(whole, null, 1)}\n`)
  if (options.json) process.stdout.write(`${JSON.stringify(whole)}\n`)
  if (options.report !== null) {
    const title = options.label ?? (options.preset === null ? 'Lorikeet benchmark' : `Lorikeet benchmark: ${options.preset}`)
    await writeFile(options.report, await renderReport({ title, results: distinctNames(results), verdicts }))
  }
  if (options.chart !== null)
    await writeFile(options.chart, renderSvg(await loadChartLibrary(), mainChart(distinctNames(results)), README_SIZE))
}

async function readResults(files: readonly string[]): Promise<NamedResult[]> {
  if (files.length === 0)
    throw new LorikeetError('CONFIG_INVALID', { option: 'report', reason: 'name one or more result files' })
  const results: NamedResult[] = []
  for (const file of files) {
    const bad = (reason: string): LorikeetError => new LorikeetError('BENCH_FAILED', { reason: `${file}: ${reason}` })
    let parsed: unknown
    try {
      parsed = JSON.parse(await readFile(file, 'utf8'))
    } catch (error) {
      throw bad(error instanceof Error ? error.message : String(error))
    }
    const list = (Array.isArray(parsed) ? parsed : [parsed]) as readonly BenchResult[]
    for (const [index, result] of list.entries()) {
      if (typeof result?.lorikeet !== 'object') throw bad('is not a result of lorikeet bench')
      const fileName = basename(file).replace(/\.json$/, '') + (list.length > 1 ? ` ${index + 1}` : '')
      const label = result['label']
      results.push({ name: typeof label === 'string' && label !== '' ? label : fileName, result })
    }
  }
  return distinctNames(results)
}

/** Charts tell lines apart by name: runs of one label are numbered. */
function distinctNames(results: readonly NamedResult[]): NamedResult[] {
  const seen = new Map<string, number>()
  return results.map(({ name, result }) => {
    const count = (seen.get(name) ?? 0) + 1
    seen.set(name, count)
    return { name: count === 1 ? name : `${name} (${count})`, result }
  })
}
