// Writes docs/numbers.md from bench/results/*.json, so that no number on that page was typed by hand.
//
//   node --import tsx bench/numbers-page.ts

import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Summary } from './metrics/statistics.ts'
import type { Environment } from './result-file.ts'

const RESULTS = 'bench/results'
const PAGE = 'docs/numbers.md'
/** Above this one-minute load something else was running: two cores of work make 2. */
const QUIET_LOAD = 0.5

interface EngineResult {
  readonly environment: Environment
  readonly setup: Readonly<Record<string, unknown>>
  readonly llamaCpp?: Readonly<Record<string, unknown>>
  readonly ratios: readonly { above: string; below: string; goal: number; decode: number; withPrefill: number }[]
  readonly medians: Readonly<Record<string, { totalRate: number; decodeRate: number; outsideNative: number | null }>>
}

interface HttpResult {
  readonly environment: Environment
  readonly medians: readonly {
    readonly name: string
    readonly requestsPerSecond: number
    readonly tokensPerSecond: number
    readonly latencyP50Ms: number
    readonly latencyP99Ms: number
  }[]
}

interface SchedulerResult {
  readonly environment: Environment
  readonly setup: { readonly numRequests: number; readonly numAdapters: number; readonly numSteps: number }
  readonly goalMs: number
  readonly ownMs: Summary
  readonly scheduleMs: Summary
  readonly updateMs: Summary
  readonly sampleMs: Summary
}

function load<T>(name: string): T | null {
  const file = join(RESULTS, `${name}.json`)
  // The shape is what our own scripts write; a file edited by hand may fail here, and should.
  return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as T) : null
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  return [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n')
}

function machine({ cpu, numCpus, node, commit, date, loadBefore }: Environment): string {
  const quiet = loadBefore > QUIET_LOAD ? ` **Provisional:** the machine was not idle (load ${loadBefore}).` : ''
  return `${numCpus} cores of ${cpu}, Node ${node.replace('v', '')}, commit ${commit}, ${date.slice(0, 10)}.${quiet}`
}

const percent = (share: number): string => `${(share * 100).toFixed(1)} %`

function engineSection(result: EngineResult): string {
  const rates = Object.entries(result.medians).map(([name, { decodeRate, totalRate, outsideNative }]) => [
    name,
    decodeRate.toFixed(1),
    totalRate.toFixed(1),
    outsideNative === null ? '' : percent(outsideNative),
  ])
  const ratios = result.ratios.map(({ above, below, goal, decode, withPrefill }) => [
    `${above} / ${below}`,
    decode.toFixed(2),
    withPrefill.toFixed(2),
    String(goal),
  ])
  return [
    machine(result.environment),
    `Medians of ${result.setup['numRounds']} rounds.`,
    '',
    table(['engine, streams, adapters', 'tokens/s, decode', 'tokens/s, with prefill', 'outside native code'], rates),
    '',
    table(['ratio, median over rounds', 'decode', 'with prefill', 'goal'], ratios),
  ].join('\n')
}

function httpSection(result: HttpResult): string {
  const rows = result.medians.map((row) => [
    row.name,
    row.requestsPerSecond.toFixed(0),
    row.tokensPerSecond.toFixed(0),
    row.latencyP50Ms.toFixed(0),
    row.latencyP99Ms.toFixed(0),
  ])
  return [machine(result.environment), '', table(['case', 'requests/s', 'tokens/s', 'p50 ms', 'p99 ms'], rows)].join('\n')
}

function schedulerSection(result: SchedulerResult): string {
  const { numRequests, numAdapters, numSteps } = result.setup
  const row = (name: string, { median, percentiles }: Summary): readonly string[] => [
    name,
    median.toFixed(3),
    (percentiles['99'] ?? Number.NaN).toFixed(3),
  ]
  const rows = [
    row('all but the forward pass and sampling', result.ownMs),
    row('schedule', result.scheduleMs),
    row('sample (greedy, tokens chosen by the backend)', result.sampleMs),
    row('update', result.updateMs),
  ]
  return [
    machine(result.environment),
    `${numRequests} running requests on ${numAdapters} adapters and the base, ${numSteps} steps; goal: under ${result.goalMs} ms.`,
    '',
    table(['stage', 'median ms', 'p99 ms'], rows),
  ].join('\n')
}

function page(): string {
  const compared = load<EngineResult>('llama-cpp')
  const random = load<EngineResult>('engine-random')
  const demo = load<EngineResult>('engine-demo')
  const http = load<HttpResult>('http-overhead')
  const scheduler = load<SchedulerResult>('scheduler-step')
  const missing = 'Not measured yet.'
  return `<!-- Written by bench/numbers-page.ts from bench/results/*.json: change those, not this page. -->

# Numbers

How to take them again, on an idle machine: \`npm run bench:numbers\` (about twenty minutes), or one script at a time, each under eight minutes.
Every script warms up first, alternates what it compares, and takes ratios within a round, so that drift of the machine cancels.
"Decode" is the stretch in which every stream makes a token a step and no prompt is being computed; "with prefill" is all output tokens
over the time from hand-over of all prompts to the last token. Prompts are 128 random token ids, outputs 128 tokens, greedy.
"none" means no adapter registered; "unused" sixteen registered and on the device but not asked for; "distinct" another rank-16 LoRA on all
seven linears for each stream. "Outside native code" is the share of the decode stretch not spent in the backend's native calls: planning,
feeding, writing keys and values, sampling, messages between threads.

## Beside llama.cpp

\`bench/llama-cpp.ts\`: a random Llama of SmolLM-135M's shape in float32, the same weights as safetensors and as GGUF, two threads each, in one
process, taking turns. Both engines produced the same greedy tokens for base and LoRA before anything was timed. llama.cpp runs through the
native addon of node-llama-cpp (${compared?.llamaCpp?.['nodeLlamaCpp'] ?? '3.22.1'}, llama.cpp ${compared?.llamaCpp?.['release'] ?? ''}): one context, one sequence a stream, all
streams in one \`llama_decode\`, key-value cache in ${compared?.llamaCpp?.['kvType'] ?? 'f16'}. It sets LoRA per context, so it has no row for distinct adapters in one batch.
Lorikeet runs through its engine client, engine on its own thread. No HTTP on either side.

${compared === null ? missing : engineSection(compared)}

## Adapters in a batch, 135M

\`bench/engine-throughput.ts\`: the same random model. Goals: a mixed batch keeps 70 % of the base, unused adapters cost under 2 %,
under 10 % of a step is outside native code.

${random === null ? missing : engineSection(random)}

## Adapters in a batch, demo model

\`bench/engine-throughput.ts --model demo\`: 260 thousand parameters, so a step is a fraction of a millisecond of arithmetic and the fixed
cost of every graph node and message dominates: the ratios here say what overhead costs, not what adapters cost.

${demo === null ? missing : engineSection(demo)}

## The engine's own cost

\`bench/scheduler-step.ts\`: full house on the null backend, so that nothing computes.

${scheduler === null ? missing : schedulerSection(scheduler)}

## HTTP

\`bench/http-overhead.ts\`: autocannon against \`lorikeet serve --backend null\`, which computes nothing. "Short" is one token, not streamed; "streamed"
is 128 tokens by server-sent events. The load generator runs on the same cores as the server, so these are lower bounds.

${http === null ? missing : httpSection(http)}
`
}

writeFileSync(PAGE, page())
console.error(`wrote ${PAGE}`)
