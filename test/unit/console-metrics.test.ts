import assert from 'node:assert/strict'
import { test } from 'node:test'
import { EngineHistory } from '../../src/server/console/page/engine-history.ts'
import { type EngineSample, readEngineSample } from '../../src/server/console/page/engine-sample.ts'
import { parseMetrics } from '../../src/server/console/page/metrics-text.ts'
import { startHarness } from '../support/http-harness.ts'

test('label values may hold blanks, braces, commas and escapes', () => {
  const text = [
    '# HELP a_total Something.',
    '# TYPE a_total counter',
    'a_total{name="one two",other="x,y}"} 3',
    'a_total{name="quote \\" slash \\\\ line \\n end"} 4.5e3 1700000000',
    'a_total_more 7',
    'plain 8',
    'b{le="+Inf"} 9',
    'nothing NaN',
    '',
  ].join('\n')
  const families = parseMetrics(text, new Set(['a_total', 'plain', 'nothing', 'absent']))
  assert.deepEqual(families.get('a_total'), [
    { labels: { name: 'one two', other: 'x,y}' }, value: 3 },
    { labels: { name: 'quote " slash \\ line \n end' }, value: 4500 },
  ])
  assert.deepEqual(families.get('plain'), [{ labels: {}, value: 8 }])
  assert.deepEqual([...families.keys()], ['a_total', 'plain'])
})

test('the server has every family that the live view reads', async () => {
  const harness = await startHarness()
  const { text } = await harness.get('/metrics')
  await harness.close()
  const sample = readEngineSample(text, 0)
  const missing = Object.entries(sample).filter(([, value]) => value === null)
  assert.deepEqual(missing, [])
  assert.match(text, /^# TYPE lorikeet_adapter_tokens_total /m)
  assert.match(text, /^vllm:lora_requests_info\{.*running_lora_adapters="/m)
})

test('adapters are read from the labels', () => {
  const sample = readEngineSample(
    [
      'vllm:lora_requests_info{max_lora="4",waiting_lora_adapters="",running_lora_adapters="a,b"} 17',
      'lorikeet_adapter_tokens_total{adapter="a",kind="prompt"} 5',
      'lorikeet_adapter_tokens_total{adapter="a",kind="generation"} 7',
      'lorikeet_adapter_state{state="registered"} 3',
      'lorikeet_adapter_state{state="device"} 2',
      'lorikeet_adapter_state{state="failed"} 1',
    ].join('\n'),
    0,
  )
  assert.deepEqual([...sample.runningAdapters], ['a', 'b'])
  assert.equal(sample.waitingAdapters.size, 0)
  assert.equal(sample.adapterTokens.get('a'), 12)
  assert.deepEqual([sample.numAdapters, sample.numOnDevice, sample.numRunning], [5, 2, null])
})

const EMPTY = readEngineSample('', 0)

function history(...samples: Partial<EngineSample>[]): EngineHistory {
  const all = new EngineHistory()
  for (const sample of samples) all.push({ ...EMPTY, ...sample })
  return all
}

test('rates are growth a second, and a server started anew grew from zero', () => {
  const rates = history(
    { atMs: 0, numGenerationTokens: 100 },
    { atMs: 2000, numGenerationTokens: 150 },
    { atMs: 3000, numGenerationTokens: 20 },
    { atMs: 4000, numGenerationTokens: null },
  ).rates('numGenerationTokens')
  assert.deepEqual(rates, [25, 20, null])
})

test('a mean is the growth of the sum by that of the count', () => {
  const both = history({ atMs: 0, ttftSumS: 1, ttftCount: 4 }, { atMs: 1000, ttftSumS: 3, ttftCount: 8 })
  assert.equal(both.ratio('ttftSumS', 'ttftCount'), 0.5)
  assert.equal(history({ atMs: 0, ttftSumS: 1, ttftCount: 4 }).ratio('ttftSumS', 'ttftCount'), null)
})

test('adapters at work come first, and those at rest are left out', () => {
  const before = new Map([
    ['idle', 50],
    ['busy', 10],
    ['done', 0],
  ])
  const after = new Map([
    ['idle', 50],
    ['busy', 11],
    ['done', 90],
  ])
  const activity = history(
    { atMs: 0, adapterTokens: before },
    { atMs: 1000, adapterTokens: after, runningAdapters: new Set(['busy']), waitingAdapters: new Set(['next']) },
  ).activity()
  assert.deepEqual(
    activity.map(({ name, numTokens, isRunning, isWaiting }) => [name, numTokens, isRunning, isWaiting]),
    [
      ['busy', 1, true, false],
      ['done', 90, false, false],
      ['next', 0, false, true],
    ],
  )
})

test('a minute is kept, and a pause starts it anew', () => {
  const samples = Array.from({ length: 100 }, (_, index) => ({ atMs: index * 1000, numRunning: index }))
  const minute = history(...samples)
  assert.deepEqual([minute.values('numRunning').length, minute.values('numRunning')[0]], [61, 39])
  minute.push({ ...EMPTY, atMs: 300_000, numRunning: 7 })
  assert.deepEqual(minute.values('numRunning'), [7])
})
