// The in-process modes on the null backend: they load the built engine, count what they ran and print it.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'node:test'

const ROOT = join(import.meta.dirname ?? '.', '../..')

function bench(...args: readonly string[]): unknown {
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(ROOT, 'dist/main.js'), 'bench', ...args], {
    cwd: ROOT,
    encoding: 'utf8',
    timeout: 120_000,
  })
  assert.equal(status, 0, stderr)
  return JSON.parse(stdout)
}

const SERVE = [
  '--',
  '--model',
  'demo/model',
  '--backend',
  'null',
  '--adapter',
  'a=demo/adapters/pirate',
  '--adapter',
  'b=demo/adapters/space',
]

test("offline: the workload's tokens, all of them, under vLLM's keys", () => {
  const args = ['--num-prompts', '30', '--input-len', '20', '--output-len', '5', '--base-share', '0.2', '--json']
  const result = bench('offline', ...args, ...SERVE) as Record<string, number>
  assert.deepEqual([result['num_requests'], result['total_num_tokens'], result['num_adapters']], [30, 750, 3])
  assert.ok((result['elapsed_time'] ?? 0) > 0)
})

test('latency: base, one adapter and adapters in turn, repeated as asked', () => {
  const args = ['--num-prompts', '2', '--input-len', '8', '--output-len', '4', '--max-concurrency', '3', '--json']
  const cases = bench('latency', ...args, ...SERVE) as { name: string; latencies: number[] }[]
  assert.deepEqual(
    cases.map(({ name, latencies }) => [name, latencies.length]),
    [
      ['base, batch 3, 8 in, 4 out', 2],
      ['one adapter, batch 3, 8 in, 4 out', 2],
      ['2 adapters in turn, batch 3, 8 in, 4 out', 2],
    ],
  )
})

test('kernels: decode and prefill steps, base and distinct adapters', () => {
  const cases = bench('kernels', '--num-prompts', '2', '--json', ...SERVE) as {
    name: string
    numTokens: number
    numAdapters: number
  }[]
  assert.deepEqual(
    cases.slice(0, 4).map(({ name, numTokens, numAdapters }) => [name, numTokens, numAdapters]),
    [
      ['decode 1', 1, 0],
      ['decode 1', 1, 1],
      ['decode 4', 4, 0],
      ['decode 4', 4, 2],
    ],
  )
  assert.ok(cases.some(({ name, numAdapters }) => name === 'prefill 256' && numAdapters === 2))
})
