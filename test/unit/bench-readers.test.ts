import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { readJsonArray } from '../../bench/readers/json-array.ts'
import { formatOwnTrace } from '../../bench/readers/json-lines.ts'
import { parseWindow, readTrace, type TraceFormat, type TraceView, viewTrace } from '../../bench/readers/read-trace.ts'
import type { ReaderOptions, TraceRecord } from '../../bench/readers/trace-record.ts'
import { traceStats } from '../../bench/trace-stats.ts'

const folder = mkdtempSync(join(tmpdir(), 'lorikeet-traces-'))
after(() => rmSync(folder, { recursive: true, force: true }))

const options: ReaderOptions = { seed: 1, minuteArrivals: 'poisson', sampleSize: 1000 }
const whole: TraceView = {
  windowStartS: 0,
  windowEndS: Number.POSITIVE_INFINITY,
  timeScale: 1,
  maxRecords: Number.POSITIVE_INFINITY,
  filter: 'none',
}

function file(name: string, content: string | Buffer): string {
  const path = join(folder, name)
  writeFileSync(path, content)
  return path
}

async function all(format: TraceFormat, path: string, changes: Partial<ReaderOptions> = {}): Promise<TraceRecord[]> {
  const records: TraceRecord[] = []
  for await (const record of readTrace(format, path, { ...options, ...changes })) records.push(record)
  return records
}

const shipped = (name: string): string => join(import.meta.dirname ?? '.', '../../traces', name)
const near = (actual: number, expected: number, within: number): void =>
  assert.ok(Math.abs(actual - expected) <= within, `${actual} is not ${expected}`)

test('Azure LLM 2023 conversation trace: published count, span, rate, burstiness and lengths', async () => {
  const stats = await traceStats(readTrace('azure-llm', shipped('azure-llm-2023-conv.csv.gz'), options))
  assert.equal(stats.count, 19_366)
  near(stats.spanS, 3501.7, 0.05)
  near(stats.rateRps, 5.53, 0.005)
  near(stats.gapCv, 1.09, 0.005)
  near(stats.input.mean, 1154.7, 0.05)
  assert.deepEqual([stats.input.median, stats.input.percentiles['99']], [1020, 4142])
  near(stats.output.mean, 211.1, 0.05)
  assert.deepEqual([stats.output.median, stats.output.percentiles['99']], [129, 601])
})

test('Azure LLM 2023 code trace', async () => {
  const stats = await traceStats(readTrace('azure-llm', shipped('azure-llm-2023-code.csv.gz'), options))
  assert.equal(stats.count, 8819)
  near(stats.spanS, 3435.9, 0.06)
  near(stats.gapCv, 13.15, 0.005)
  near(stats.input.mean, 2047.8, 0.05)
  near(stats.output.mean, 27.9, 0.05)
})

test('Azure Functions 2019, one hour of 500 functions: every invocation once, in order, skewed as counted', async () => {
  let isOrdered = true
  let lastS = 0
  async function* watched(): AsyncGenerator<TraceRecord> {
    for await (const record of readTrace('azure-functions-2019', shipped('azure-functions-2019-hour.csv.gz'), options)) {
      isOrdered &&= record.timeS !== null && record.timeS >= lastS
      lastS = record.timeS ?? 0
      yield record
    }
  }
  const stats = await traceStats(watched())
  assert.ok(isOrdered && lastS < 3600)
  assert.equal(stats.count, FUNCTIONS_HOUR_COUNT)
  assert.ok(stats.topPercentShare > 0.75, `top ${stats.topPercentShare}`)
})

const FUNCTIONS_HOUR_COUNT = 366_494

test('Functions 2019: inside a minute, evenly spaced or by a Poisson process, the counts kept', async () => {
  const path = file('functions.csv', 'HashOwner,HashApp,HashFunction,Trigger,1,2\no,a,f,http,4,0\no,a,g,http,0,2\n')
  const even = await all('azure-functions-2019', path, { minuteArrivals: 'uniform' })
  assert.deepEqual(
    even.map(({ key }) => key),
    ['f', 'f', 'f', 'f', 'g', 'g'],
  )
  for (const index of [1, 2, 3]) near((even[index]?.timeS ?? 0) - (even[index - 1]?.timeS ?? 0), 15, 1e-9)
  const poisson = await all('azure-functions-2019', path)
  assert.deepEqual(
    poisson.map(({ key }) => key),
    ['f', 'f', 'f', 'f', 'g', 'g'],
  )
  assert.ok(poisson.slice(4).every(({ timeS }) => (timeS ?? 0) >= 60 && (timeS ?? 0) < 120))
  assert.deepEqual(poisson, await all('azure-functions-2019', path))
})

test('Functions 2021: starts are end minus duration, put in order', async () => {
  const path = file('2021.csv', 'app,func,end_timestamp,duration\na,f,10,1\na,g,11,9\na,f,12.5,0.5\n')
  const records = await all('azure-functions-2021', path)
  assert.deepEqual(
    records.map(({ timeS, key }) => [timeS, key]),
    [
      [0, 'g'],
      [7, 'f'],
      [10, 'f'],
    ],
  )
})

test('ShareGPT lengths: all rows, and those that vLLM keeps', async () => {
  const path = shipped('sharegpt-lengths.csv.gz')
  const stats = await traceStats(readTrace('sharegpt-lengths', path, options))
  assert.equal(stats.count, 30_731)
  assert.deepEqual([stats.input.median, stats.output.median], [1730, 415])
  const kept = await traceStats(viewTrace(readTrace('sharegpt-lengths', path, options), { ...whole, filter: 'vllm' }))
  assert.equal(kept.count, SHAREGPT_KEPT)
  assert.ok(kept.input.percentiles['99'] !== undefined && kept.input.percentiles['99'] <= 1024)
})

const SHAREGPT_KEPT = 11_035

test('ShareGPT JSON: first two turns, shuffled by seed, reservoir bounded, odd entries skipped', async () => {
  const turns = (n: number) => [
    { from: 'human', value: `ask ${n} "quoted \\" [brackets] {` },
    { from: 'gpt', value: `say ${n} é\n` },
    { from: 'human', value: 'more' },
  ]
  const entries = [
    ...Array.from({ length: 40 }, (_, n) => ({ id: String(n), conversations: turns(n) })),
    { id: 'short', conversations: turns(0).slice(0, 1) },
    { id: 'none' },
  ]
  const path = file('sharegpt.json', JSON.stringify(entries, null, 1))
  const records = await all('sharegpt', path)
  assert.equal(records.length, 40)
  assert.deepEqual(
    new Set(records.map(({ text }) => text?.answer)),
    new Set(entries.slice(0, 40).map((_, n) => `say ${n} é\n`)),
  )
  assert.deepEqual(records, await all('sharegpt', path))
  assert.notDeepEqual(records, await all('sharegpt', path, { seed: 2 }))
  assert.equal((await all('sharegpt', path, { sampleSize: 10 })).length, 10)
})

test('the JSON splitter gives the same elements wherever the chunks end, and says where JSON is broken', async () => {
  const text = `[\n {"a": "x,]}\\"", "b": [1, {"c": "é"}]},\n 2 , "s", {}, [] ]\n`
  const values: unknown[] = []
  for await (const { value } of readJsonArray(file('array.json', text))) values.push(value)
  assert.deepEqual(values, JSON.parse(text))
  const read = async (name: string, content: string): Promise<void> => {
    for await (const element of readJsonArray(file(name, content))) assert.ok(element)
  }
  await assert.rejects(read('cut.json', '[{"a": 1}, {"b"'), /cut\.json: line 1: .*ends before/)
  await assert.rejects(read('bad.json', '[{"a": 1},\n{"b": nope}]'), /bad\.json: line 2: .*is not JSON/)
  await assert.rejects(read('object.json', '{"a": 1}'), /must be one JSON array/)
})

test('ServeGen: the hour has the requests its windows state, from every client, with lengths', async () => {
  const stats = await traceStats(
    viewTrace(readTrace('servegen', shipped('servegen-m-small_clients.csv'), options), { ...whole, windowEndS: 60 }),
  )
  near(stats.count / (SERVEGEN_FIRST_MINUTE_RPS * 60), 1, 0.05)
  assert.ok(stats.numKeys >= 10)
  assert.ok(stats.input.count > stats.count / 4)
})

const SERVEGEN_FIRST_MINUTE_RPS = 789.56

test('ServeGen: bursty clients keep their rate, and gaps their law', async () => {
  const rows = Array.from(
    { length: 40 },
    (_, index) => `c,${index * 600},2,4,${index % 2 ? 'Weibull' : 'Gamma'},${index % 2 ? 0.4 : 1 / 16},9`,
  )
  const path = file('x_clients.csv', `client,t_s,rate_rps,cv,pattern,shape,scale\n${rows.join('\n')}\n`)
  const stats = await traceStats(readTrace('servegen', path, options))
  near(stats.count / 48_000, 1, 0.05)
  assert.ok(stats.gapCv > 3, `cv ${stats.gapCv}`)
})

test('Mooncake: milliseconds, lengths and shared blocks', async () => {
  const records = await all('mooncake', shipped('mooncake-conversation-1000.jsonl.gz'))
  assert.equal(records.length, 1000)
  assert.deepEqual([records[0]?.inputLen, records[0]?.outputLen, records[0]?.blockIds?.length], [6758, 500, 14])
  const stats = await traceStats(readTrace('mooncake', shipped('mooncake-conversation-1000.jsonl.gz'), options))
  near(stats.blockReuse, MOONCAKE_REUSE, 0.001)
})

const MOONCAKE_REUSE = 0.21209

test('BurstGPT: answered GPT-4 rows', async () => {
  const path = file(
    'burst.csv',
    'Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,Conversation log\n45,GPT-4,1087,230,1317,Conversation log\n118,GPT-4,417,0,417,API log\n185,GPT-4,1360,276,1636,API log\n',
  )
  assert.deepEqual(
    (await all('burstgpt', path)).map(({ timeS, inputLen, outputLen, key }) => [timeS, inputLen, outputLen, key]),
    [
      [0, 1087, 230, 'Conversation log'],
      [140, 1360, 276, 'API log'],
    ],
  )
})

test("the harness's own form reads back what was written", async () => {
  const record: TraceRecord = { timeS: 1.25, inputLen: 7, outputLen: 9, key: 'k', blockIds: [1, 2], text: null }
  const path = file('own.jsonl.gz', gzipSync(`${formatOwnTrace(record)}\n\n{"input": 3}`))
  const [first, second] = await all('jsonl', path)
  assert.deepEqual(first, record)
  assert.deepEqual(second, { timeS: null, inputLen: 3, outputLen: null, key: null, blockIds: null, text: null })
})

test('a view windows, scales and bounds a trace', async () => {
  const path = file(
    'w.csv',
    'TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:00:00.0000000,1,1\r\n2023-11-16 18:00:10.5000000,2,2\r\n2023-11-16 18:00:20.0000001,3,3',
  )
  const view = async (changes: Partial<TraceView>): Promise<(number | null)[][]> => {
    const rows: (number | null)[][] = []
    for await (const { timeS, inputLen } of viewTrace(readTrace('azure-llm', path, options), { ...whole, ...changes }))
      rows.push([timeS, inputLen])
    return rows
  }
  assert.deepEqual(
    await view({}),
    [
      [0, 1],
      [10.5, 2],
      [20.0000001, 3],
    ].map((row) => row),
  )
  assert.deepEqual(await view({ ...parseWindow('5:20'), timeScale: 2 }), [[2.75, 2]])
  assert.deepEqual(await view({ maxRecords: 1 }), [[0, 1]])
  assert.throws(() => parseWindow('9:3'), /--window/)
})

test('a malformed line is reported with file, line and column', async () => {
  const header = 'TIMESTAMP,ContextTokens,GeneratedTokens\n'
  const cases: readonly (readonly [TraceFormat, string, string, RegExp])[] = [
    ['azure-llm', 'a.csv', `${header}2023-11-16 18:00:00.0,x,1\n`, /a\.csv: line 2: ContextTokens: is not a number: "x"/],
    ['azure-llm', 'b.csv', `${header}2023-11-16 18:00:00.0,4.5,1\n`, /b\.csv: line 2: ContextTokens: is not a whole number/],
    ['azure-llm', 'c.csv', `${header}\nyesterday,4,1\n`, /c\.csv: line 3: TIMESTAMP: is not/],
    ['azure-llm', 'd.csv', `${header}2023-11-16 18:00:00.0,4\n`, /d\.csv: line 2: ContextTokens: the line has 2 fields/],
    ['azure-llm', 'e.csv', 'TIMESTAMP,Tokens\n', /e\.csv: line 1: ContextTokens: the header lacks/],
    ['azure-llm', 'f.csv', '', /f\.csv: line 1: \(header\): the file is empty/],
    ['mooncake', 'g.jsonl', '{"timestamp": 0, "input_length": "6"}\n', /g\.jsonl: line 1: input_length: must be a number/],
    ['mooncake', 'h.jsonl', '{"timestamp": 0, "inp\n', /h\.jsonl: line 1: \(line\): is not JSON/],
    ['servegen', 'i.csv', 'client,t_s,rate_rps,cv,pattern,shape\n0,0,1,1,Pareto,1\n', /i\.csv: line 2: pattern: must be Gamma/],
    [
      'burstgpt',
      'j.csv',
      'Timestamp,Model,Request tokens,Response tokens\n-1,GPT-4,1,1\n',
      /j\.csv: line 2: Timestamp: must be at least 0/,
    ],
  ]
  for (const [format, name, content, expected] of cases) await assert.rejects(all(format, file(name, content)), expected)
  await assert.rejects(all('azure-llm', join(folder, 'missing.csv')), /missing\.csv: line 1: \(file\): .*ENOENT/)
})

test('a long trace is read in constant memory', async () => {
  const line = '2023-11-16 18:15:46.6805900,374,44\n'
  const path = file('long.csv.gz', gzipSync(`TIMESTAMP,ContextTokens,GeneratedTokens\n${line.repeat(100_000)}`))
  let count = 0
  let peakBytes = 0
  for await (const record of readTrace('azure-llm', path, options)) {
    count += record.inputLen === 374 ? 1 : 0
    if (count % 20_000 === 0) peakBytes = Math.max(peakBytes, process.memoryUsage().arrayBuffers)
  }
  assert.equal(count, 100_000)
  assert.ok(peakBytes < 8 * 1024 * 1024, `${peakBytes} bytes of buffers held`)
})
