// `lorikeet bench`: reads the flags, runs, prints. The load goes over HTTP, so any OpenAI-compatible server can be measured.
import { writeFile } from 'node:fs/promises'
import { LorikeetError } from '../src/errors.ts'
import { formatResult } from './metrics/format-result.ts'
import { formatHelp, parseOptions } from './options.ts'
import { openServer, runServe } from './run-serve.ts'
import { parsePercents, parseSlo } from './setup-facts.ts'

const USAGE = `lorikeet bench: load a server and measure it, open loop.

  lorikeet bench [FLAGS]                 one run, or a sweep with --over
`

export async function runBench(args: readonly string[]): Promise<number> {
  const { options, positionals } = parseOptions(args)
  if (options.help) {
    process.stdout.write(`${USAGE}${formatHelp()}\n`)
    return 0
  }
  const [mode = 'serve'] = positionals
  if (mode !== 'serve') throw new LorikeetError('CONFIG_INVALID', { option: 'bench', reason: `there is no mode ${mode}` })
  parseSlo(options.goodput)
  const percents = parsePercents(options['metric-percentiles'])
  const interrupt = new AbortController()
  process.once('SIGINT', () => interrupt.abort())
  process.once('SIGTERM', () => interrupt.abort())
  const context = await openServer(options, interrupt.signal)
  const result = await runServe(options, context, interrupt.signal)
  if (options['save-result'] !== null) await writeFile(options['save-result'], `${JSON.stringify(result, null, 1)}\n`)
  process.stdout.write(options.json ? `${JSON.stringify(result)}\n` : `${formatResult(result, percents)}\n`)
  return result.lorikeet.ending === 'completed' ? 0 : 1
}
