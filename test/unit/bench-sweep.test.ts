import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatHelp, overlayOptions, parseOptions } from '../../bench/options.ts'
import { formatPresets, PRESETS } from '../../bench/presets/run-preset.ts'
import { stripAdapterFlags } from '../../bench/presets/throughput-presets.ts'
import { bisectRate, combinations, parseDimension } from '../../bench/sweep.ts'
import { chooseArrival } from '../../bench/workload/workload-options.ts'

test('a sweep runs every combination: server flags slowest, rates fastest and rising', () => {
  const settings = combinations(['request-rate=4,1', 'num-adapters=2,8', 'server.max-num-seqs=16,32'].map(parseDimension))
  assert.equal(settings.length, 8)
  assert.deepEqual(settings.slice(0, 3), [
    {
      name: 'server.max-num-seqs=16 num-adapters=2 request-rate=1',
      args: ['--num-adapters=2', '--request-rate=1'],
      serverArgs: ' --max-num-seqs 16',
      group: ' server.max-num-seqs=16 num-adapters=2',
    },
    {
      name: 'server.max-num-seqs=16 num-adapters=2 request-rate=4',
      args: ['--num-adapters=2', '--request-rate=4'],
      serverArgs: ' --max-num-seqs 16',
      group: ' server.max-num-seqs=16 num-adapters=2',
    },
    {
      name: 'server.max-num-seqs=16 num-adapters=8 request-rate=1',
      args: ['--num-adapters=8', '--request-rate=1'],
      serverArgs: ' --max-num-seqs 16',
      group: ' server.max-num-seqs=16 num-adapters=8',
    },
  ])
  assert.throws(() => parseDimension('request-rate'), /--over/)
  assert.throws(() => parseDimension('request-rate=1,,2'), /--over/)
})

test('bisection finds the highest rate that holds, from either side, within 5 %', async () => {
  const search = async (first: number, limit: number): Promise<{ rate: number | null; tried: number[] }> => {
    const tried: number[] = []
    const holds = async (rate: number): Promise<boolean> => {
      tried.push(rate)
      return rate <= limit
    }
    return { rate: await bisectRate(first, holds, () => false), tried }
  }
  for (const [first, limit] of [
    [1, 77],
    [100, 7.7],
    [8, 8],
  ] as const) {
    const { rate, tried } = await search(first, limit)
    assert.ok(rate !== null && rate <= limit && rate > limit / 1.06, `${rate} for ${limit}`)
    assert.ok(tried.length < 16, `${tried.length} runs`)
    assert.equal(new Set(tried).size, tried.length, 'no rate is run twice')
  }
  assert.equal((await search(10, 0)).rate, null)
  assert.equal(
    await bisectRate(
      1,
      async () => true,
      () => true,
    ),
    null,
  )
})

test('the kind of arrivals follows from the other flags, and contradictions are refused', () => {
  const arrival = (...args: string[]): string => chooseArrival(parseOptions(args).options)
  assert.equal(arrival(), 'poisson')
  assert.equal(arrival('--request-rate', 'inf'), 'burst')
  assert.equal(arrival('--max-concurrency', '4'), 'closed')
  assert.equal(arrival('--max-concurrency', '4', '--request-rate', '2'), 'poisson')
  assert.equal(arrival('--cv', '3'), 'gamma')
  assert.equal(arrival('--dataset', 'azure-llm'), 'trace')
  assert.equal(arrival('--dataset', 'azure-llm', '--arrival', 'poisson'), 'poisson')
  assert.throws(() => arrival('--arrival', 'closed'), /--arrival: closed needs --max-concurrency/)
  assert.throws(() => arrival('--arrival', 'closed', '--max-concurrency', '2', '--request-rate', '1'), /--request-rate/)
})

test("a run's own flags replace those of the session, lists too", () => {
  const options = overlayOptions(['--adapters', 'a,b', '--seed', '3', '--no-scrape'], ['--adapters=c', '--num-prompts=5'])
  assert.deepEqual([options.adapters, options.seed, options['num-prompts'], options.scrape], [['c'], 3, 5, false])
})

test('every flag is in the help with its default; bad values name their flag', () => {
  const help = formatHelp()
  for (const name of ['--base-url', '--adapter-popularity', '--goodput', '--client-processes']) assert.ok(help.includes(name))
  assert.ok(help.includes('[http://127.0.0.1:8000]'))
  for (const [args, expected] of [
    [['--num-prompts', '0'], /--num-prompts: must be at least 1/],
    [['--num-prompts', '1.5'], /--num-prompts: must be a whole number/],
    [['--thin', '2'], /--thin: must be at most 1/],
    [['--dataset', 'alpaca'], /--dataset: must be one of random, sharegpt/],
    [['--time-scale', '0'], /--time-scale: must be above 0/],
  ] as const) {
    assert.throws(() => parseOptions(args), expected)
  }
})

test('R1 to R11 are there, each with its pass bar', () => {
  assert.deepEqual(
    PRESETS.map(({ id }) => id),
    Array.from({ length: 11 }, (_, index) => `R${index + 1}`),
  )
  for (const { name, bar } of PRESETS) {
    assert.ok(formatPresets().includes(`--preset ${name}`))
    assert.ok(formatPresets().includes(bar))
  }
})

test('the base-tax recipe starts the same server without its adapters', () => {
  const command = 'node dist/main.js serve --model m --adapter-dir demo/adapters --adapter a=b --port 8000'
  assert.equal(stripAdapterFlags(command), 'node dist/main.js serve --model m --port 8000')
  assert.equal(stripAdapterFlags('vllm serve m --enable-lora --lora-modules=a=b --port 1'), 'vllm serve m --port 1')
  assert.equal(stripAdapterFlags('vllm serve m'), null)
})
