// What HTTP costs when the model costs nothing: autocannon against `lorikeet serve --backend null`.
// Short requests a second, and tokens a second through SSE. The load generator shares the machine with the server, so these are lower bounds.
//
//   npm run build && node --import tsx bench/http-overhead.ts [--seconds 8] [--rounds 3] [--out FILE]

import { parseArgs } from 'node:util'
import autocannon from 'autocannon'
import { invariant } from '../src/core/invariant.ts'
import { LorikeetError } from '../src/errors.ts'
import { median } from './generation-run.ts'
import { MODEL, MODEL_NAME, startNullServer } from './null-server.ts'
import { describeEnvironment, writeResult } from './result-file.ts'

interface Scenario {
  readonly name: string
  readonly connections: number
  readonly maxTokens: number
  readonly stream: boolean
}

const SCENARIOS: readonly Scenario[] = [
  { name: 'short, 1 connection', connections: 1, maxTokens: 1, stream: false },
  { name: 'short, 64 connections', connections: 64, maxTokens: 1, stream: false },
  { name: 'streamed, 1 connection', connections: 1, maxTokens: 128, stream: true },
  { name: 'streamed, 64 connections', connections: 64, maxTokens: 128, stream: true },
  { name: 'streamed, 256 connections', connections: 256, maxTokens: 128, stream: true },
]

/** Token ids, so that no tokeniser runs on the way in. */
const PROMPT = [1, 403, 407, 261, 378]
const WARM_UP_SECONDS = 2

function bodyOf({ maxTokens, stream }: Scenario): string {
  return JSON.stringify({ model: MODEL_NAME, prompt: PROMPT, max_tokens: maxTokens, ignore_eos: true, temperature: 0, stream })
}

/** One request of each kind, read whole: the numbers below count tokens by the request's own `max_tokens`. */
async function checkAnswer(url: string, scenario: Scenario): Promise<void> {
  const headers = { 'content-type': 'application/json' }
  const answer = await fetch(`${url}/v1/completions`, { method: 'POST', headers, body: bodyOf(scenario) })
  const text = await answer.text()
  if (!answer.ok) throw new LorikeetError('INTERNAL', { detail: `${scenario.name}: ${answer.status} ${text}` })
  if (!scenario.stream) {
    const { usage } = JSON.parse(text) as { usage: { completion_tokens: number } }
    invariant(usage.completion_tokens === scenario.maxTokens, `${scenario.name}: ${usage.completion_tokens} tokens`)
    return
  }
  invariant(text.trimEnd().endsWith('data: [DONE]'), `${scenario.name}: the stream ends with [DONE]`)
}

interface Throughput {
  readonly requestsPerSecond: number
  readonly tokensPerSecond: number
  readonly latencyP50Ms: number
  readonly latencyP99Ms: number
}

async function measure(url: string, scenario: Scenario, seconds: number): Promise<Throughput> {
  const result = await autocannon({
    url: `${url}/v1/completions`,
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: bodyOf(scenario),
    connections: scenario.connections,
    duration: seconds,
  })
  const numFailed = result.errors + result.timeouts + result.non2xx
  if (numFailed > 0) throw new LorikeetError('INTERNAL', { detail: `${scenario.name}: ${numFailed} requests failed` })
  const requestsPerSecond = result['2xx'] / result.duration
  return {
    requestsPerSecond,
    tokensPerSecond: requestsPerSecond * scenario.maxTokens,
    latencyP50Ms: result.latency.p50,
    latencyP99Ms: result.latency.p99,
  }
}

async function measureAll(url: string, rounds: number, seconds: number): Promise<Map<string, Throughput[]>> {
  const rows = new Map<string, Throughput[]>(SCENARIOS.map(({ name }) => [name, []]))
  for (const scenario of SCENARIOS) {
    await checkAnswer(url, scenario)
    await measure(url, scenario, WARM_UP_SECONDS)
  }
  for (let round = 0; round < rounds; round++) {
    for (const scenario of SCENARIOS) rows.get(scenario.name)?.push(await measure(url, scenario, seconds))
  }
  return rows
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      seconds: { type: 'string', default: '8' },
      rounds: { type: 'string', default: '3' },
      out: { type: 'string', default: 'bench/results/http-overhead.json' },
    },
  })
  const environment = describeEnvironment()
  const server = await startNullServer(['--no-grpc'])
  try {
    const rows = await measureAll(server.url, Number(values.rounds), Number(values.seconds))
    console.log('| case | requests/s | tokens/s | p50 ms | p99 ms |\n| --- | --- | --- | --- | --- |')
    const medians = [...rows].map(([name, samples]) => {
      const middle = (pick: (sample: Throughput) => number): number => median(samples.map(pick))
      const row = {
        name,
        requestsPerSecond: middle((sample) => sample.requestsPerSecond),
        tokensPerSecond: middle((sample) => sample.tokensPerSecond),
        latencyP50Ms: middle((sample) => sample.latencyP50Ms),
        latencyP99Ms: middle((sample) => sample.latencyP99Ms),
      }
      const cells = [row.requestsPerSecond, row.tokensPerSecond, row.latencyP50Ms, row.latencyP99Ms].map((n) => n.toFixed(0))
      console.log(`| ${name} | ${cells.join(' | ')} |`)
      return { ...row, samples }
    })
    const setup = { model: MODEL, backend: 'null', seconds: Number(values.seconds), rounds: Number(values.rounds), SCENARIOS }
    writeResult(values.out, { bench: 'http-overhead', environment, setup, medians })
  } finally {
    await server.stop()
  }
}

await main()
