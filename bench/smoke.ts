// A minute of every shipped trace against the demo server, thinned and sped up to CI time: fails when a request does.
// `node --import tsx bench/smoke.ts [BACKEND]`
import { createServer } from 'node:net'
import { asLorikeetError } from '../src/errors.ts'
import type { BenchResult } from './metrics/bench-result.ts'
import { Session } from './session.ts'

/** Kept shares and scales make each minute some 20 to 60 short requests in about six seconds. */
const REPLAYS: readonly (readonly [name: string, args: readonly string[]])[] = [
  ['Azure LLM 2023, conversation', ['--dataset=azure-llm', '--window=0:60', '--thin=0.1', '--length-scale=0.1']],
  [
    'Azure LLM 2023, code',
    [
      '--dataset=azure-llm',
      '--dataset-path=traces/azure-llm-2023-code.csv.gz',
      '--window=0:60',
      '--thin=0.2',
      '--length-scale=0.05',
    ],
  ],
  [
    'Azure Functions 2019',
    ['--dataset=azure-functions-2019', '--window=0:60', '--thin=0.01', '--input-len=uniform:8:64', '--output-len=uniform:4:24'],
  ],
  [
    'ServeGen m-small',
    ['--dataset=servegen', '--window=0:60', '--thin=0.0008', '--length-scale=0.1', '--input-len=64', '--output-len=16'],
  ],
  ['Mooncake conversation', ['--dataset=mooncake', '--window=0:60', '--thin=0.2', '--length-scale=0.02']],
  ['ShareGPT lengths', ['--dataset=sharegpt-lengths', '--num-prompts=40', '--request-rate=7', '--length-scale=0.1']],
]

const TIME_SCALE = '--time-scale=10'

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  await new Promise((resolve) => server.close(resolve))
  return typeof address === 'object' && address !== null ? address.port : 0
}

async function replayAll(backend: string): Promise<boolean> {
  const port = await freePort()
  const serve =
    'node dist/main.js serve --model demo/model --adapter-dir demo/adapters --log-level warn --host 127.0.0.1 --no-grpc'
  const args = [
    `--start-server=${serve} --backend ${backend} --port ${port}`,
    `--base-url=http://127.0.0.1:${port}`,
    '--progress=none',
    TIME_SCALE,
  ]
  const session = new Session(args, new AbortController().signal, ({ name, result }) => {
    process.stdout.write(`${line(name, result)}\n`)
  })
  let isGood = true
  try {
    for (const [name, replay] of REPLAYS) {
      const { lorikeet } = await session.run(name, replay)
      isGood &&= lorikeet.completed > 0 && lorikeet.failed + lorikeet.rejected + lorikeet.aborted === 0
      for (const { count, message } of lorikeet.errors) process.stdout.write(`  ${count} x ${message}\n`)
    }
  } finally {
    await session.close()
  }
  return isGood
}

function line(name: string, result: BenchResult): string {
  const value = (key: string): string => Number(result[key] ?? 0).toFixed(1)
  const { lorikeet } = result
  const counts = `${lorikeet.completed} completed, ${lorikeet.failed + lorikeet.rejected + lorikeet.aborted} not`
  return `${name.padEnd(30)}${counts.padEnd(24)}TTFT p50 ${value('median_ttft_ms')} p99 ${value('p99_ttft_ms')} ms   TPOT p50 ${value('median_tpot_ms')} ms   ${value('output_throughput')} tok/s`
}

replayAll(process.argv[2] ?? 'onnx').then(
  (isGood) => process.exit(isGood ? 0 : 1),
  (error: unknown) => {
    process.stderr.write(`${asLorikeetError(error).message}\n`)
    process.exit(1)
  },
)
