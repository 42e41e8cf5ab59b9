// The load harness as a user runs it: its own process against a server, read by what it prints and by what the server saw.
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'node:test'
import type { BenchResult } from '../../bench/metrics/bench-result.ts'
import { completionSteps, FakeLlmServer, type Script, type SeenRequest } from '../support/fake-llm-server.ts'

const ROOT = join(import.meta.dirname ?? '.', '../..')

interface Finished {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

function start(args: readonly string[]): { readonly child: ChildProcess; readonly finished: Promise<Finished> } {
  const child = spawn(process.execPath, ['--import', 'tsx', join(ROOT, 'bench/main.ts'), 'bench', ...args], { cwd: ROOT })
  let [stdout, stderr] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => (stdout += chunk))
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => (stderr += chunk))
  return { child, finished: new Promise((resolve) => child.on('close', (code) => resolve({ code, stdout, stderr }))) }
}

async function withServer<T>(
  scriptOf: (request: SeenRequest, index: number) => Script,
  adapters: readonly string[],
  use: (url: string, server: FakeLlmServer) => Promise<T>,
): Promise<T> {
  const server = new FakeLlmServer(scriptOf, adapters)
  try {
    return await use(await server.listen(), server)
  } finally {
    await server.close()
  }
}

const answer: Script = { kind: 'stream', steps: completionSteps([0, 0, 0], { prompt: 8, completion: 3 }) }
const quiet = ['--json', '--progress', 'none', '--warmup', 'none', '--no-scrape']

async function bench(url: string, args: readonly string[]): Promise<BenchResult> {
  const { code, stdout, stderr } = await start(['--base-url', url, ...quiet, ...args]).finished
  assert.equal(code, 0, stderr)
  return JSON.parse(stdout) as BenchResult
}

test('a Poisson run over ShareGPT lengths names every adapter, sends token ids and reports no failure', async () => {
  await withServer(
    () => answer,
    ['a', 'b', 'c'],
    async (url, server) => {
      const args = ['--dataset', 'sharegpt-lengths', '--num-prompts', '60', '--arrival', 'poisson', '--request-rate', '300']
      const result = await bench(url, [...args, '--base-share', '0.2', '--seed', '3'])
      assert.deepEqual([result['completed'], result['failed'], result['total_output_tokens']], [60, 0, 180])
      assert.equal(result['request_rate'], 300)
      assert.deepEqual(new Set(server.seen.map(({ body }) => body['model'])), new Set(['base', 'a', 'b', 'c']))
      for (const { body } of server.seen) {
        const prompt = body['prompt'] as number[]
        assert.ok(
          prompt.every((id) => id >= 100 && id < 140),
          'ids come from the served tokenizer',
        )
        assert.ok(prompt.length + Number(body['max_tokens']) <= 512, 'the context is kept')
        assert.deepEqual([body['stream'], body['ignore_eos'], body['temperature']], [true, true, 0])
      }
      assert.ok(result.lorikeet.clipped_requests > 0)
      const first = server.seen.map(({ body }) => body)
      server.seen.length = 0
      await bench(url, [...args, '--base-share', '0.2', '--seed', '3'])
      const order = (bodies: readonly unknown[]): string[] => bodies.map((body) => JSON.stringify(body)).sort()
      assert.deepEqual(order(server.seen.map(({ body }) => body)), order(first), 'the same seed sends the same requests')
    },
  )
})

test('a closed loop keeps its concurrency and reports no rate', async () => {
  let running = 0
  let peak = 0
  const server = new FakeLlmServer(() => {
    running += 1
    peak = Math.max(peak, running)
    setTimeout(() => (running -= 1), 5)
    return { kind: 'stream', steps: completionSteps([0], { prompt: 1, completion: 1 }) }
  })
  server.afterWrite = () => new Promise((resolve) => setTimeout(resolve, 5))
  const url = await server.listen()
  const result = await bench(url, ['--num-prompts', '40', '--max-concurrency', '4', '--input-len', '4', '--output-len', '1'])
  await server.close()
  assert.deepEqual([result['completed'], result['request_rate'], result['max_concurrency']], [40, null, 4])
  assert.ok(peak <= 4 && peak > 1, `peak ${peak}`)
})

test('several client processes send one run: each request once, records merged', async () => {
  await withServer(
    () => answer,
    ['a', 'b'],
    async (url, server) => {
      const args = ['--num-prompts', '50', '--request-rate', '200', '--input-len', 'uniform:2:9', '--output-len', '3']
      const result = await bench(url, [...args, '--client-processes', '3', '--save-detailed'])
      assert.deepEqual([result['completed'], result['failed'], server.seen.length], [50, 0, 50])
      const bodies = server.seen.map(({ body }) => JSON.stringify(body)).sort()
      server.seen.length = 0
      await bench(url, args)
      assert.deepEqual(server.seen.map(({ body }) => JSON.stringify(body)).sort(), bodies, 'as one process sends')
    },
  )
})

test('rejections and failures stand beside the latencies and do not enter them', async () => {
  const scripts: readonly Script[] = [
    answer,
    { kind: 'status', status: 429, body: '{"error":{"message":"The queue is full (12 requests wait)."}}' },
    { kind: 'status', status: 500, body: '{"error":{"message":"boom"}}' },
    answer,
  ]
  await withServer(
    (_, index) => scripts[index % 4]!,
    [],
    async (url) => {
      const result = await bench(url, ['--num-prompts', '40', '--request-rate', 'inf', '--goodput', 'ttft:60000'])
      assert.deepEqual([result['completed'], result['failed']], [20, 20])
      assert.deepEqual([result.lorikeet.rejected, result.lorikeet.failed, result.lorikeet.attainment.slo], [10, 10, 0.5])
      assert.deepEqual(
        new Set(result.lorikeet.errors.map(({ status, count }) => `${status} x ${count}`)),
        new Set(['429 x 10', '500 x 10']),
      )
    },
  )
})

test('a server that dies mid-run ends the run with a report', async () => {
  const server = new FakeLlmServer((_, index) => {
    if (index === 10) setImmediate(() => void server.close())
    return index < 10 ? answer : { kind: 'stream', steps: completionSteps([0], null).slice(0, 1), end: 'hang' }
  })
  const url = await server.listen()
  const { code, stdout } = await start(['--base-url', url, ...quiet, '--num-prompts', '5000', '--request-rate', '100']).finished
  const result = JSON.parse(stdout) as BenchResult
  assert.equal(code, 1)
  assert.equal(result.lorikeet.ending, 'server-died')
  assert.equal(result['completed'], 10)
  assert.ok(result.lorikeet.not_sent > 4000, `${result.lorikeet.not_sent} not sent`)
})

test('Ctrl-C ends the run and still reports', async () => {
  let child: ChildProcess | null = null
  const server = new FakeLlmServer((_, index) => {
    if (index === 20) child?.kill('SIGINT')
    return index < 20 ? answer : { kind: 'stream', steps: [], end: 'hang' }
  })
  const url = await server.listen()
  const started = start(['--base-url', url, ...quiet, '--num-prompts', '100000', '--request-rate', '200'])
  child = started.child
  const { code, stdout } = await started.finished
  await server.close()
  const result = JSON.parse(stdout) as BenchResult
  assert.equal(code, 1)
  assert.equal(result.lorikeet.ending, 'interrupted')
  assert.equal(result['completed'], 20)
  assert.ok(result.lorikeet.aborted > 0)
})

test('the table for people has percentiles and says what they are over; progress lines are JSON when piped', async () => {
  await withServer(
    () => answer,
    ['a', 'b'],
    async (url) => {
      const { code, stdout } = await start(['--base-url', url, '--num-prompts', '20', '--request-rate', 'inf']).finished
      assert.equal(code, 0)
      assert.match(stdout, /20 completed {3}0 failed {3}0 rejected {3}0 aborted/)
      for (const name of ['TTFT', 'TPOT', 'ITL', 'E2EL']) assert.match(stdout, new RegExp(`^${name} `, 'm'))
      assert.match(stdout, /p50 .*p90 .*p95 .*p99/)
      assert.match(stdout, /latencies are over successful requests only/)
    },
  )
})

test('bad flags, a missing server and a malformed trace end with one line that names the fault', async () => {
  const refused = async (args: readonly string[], expected: RegExp): Promise<void> => {
    const { code, stdout, stderr } = await start(args).finished
    assert.equal(code, 1)
    assert.equal(stdout, '')
    assert.match(stderr, expected)
    assert.ok(!stderr.includes('    at '), stderr)
  }
  await withServer(
    () => answer,
    [],
    async (url) => {
      await refused(['--request-rate', 'fast'], /--request-rate: is not a number: fast/)
      await refused(['--no-such-flag'], /no-such-flag/)
      await refused(['--base-url', 'http://127.0.0.1:9', '--ready-timeout', '0'], /no healthy server at/)
      await refused(
        ['--base-url', url, '--dataset', 'azure-llm', '--dataset-path', 'package.json', ...quiet],
        /package\.json: line 1: TIMESTAMP/,
      )
      await refused(
        ['--base-url', url, '--dataset', 'sharegpt-lengths', '--arrival', 'trace', ...quiet],
        /--arrival: sharegpt-lengths has no times/,
      )
    },
  )
})
