import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createRandom } from '../../bench/random/random.ts'
import { drawLength, fitLengths, parseLengthLaw, randomRangeLaw } from '../../bench/workload/lengths.ts'
import {
  createAdapterChooser,
  parsePopularity,
  parseSplit,
  popularityWeights,
  punicaCounts,
} from '../../bench/workload/popularity.ts'

const DRAWS = 100_000

function countsOf(law: string, numAdapters: number, numRequests = DRAWS): number[] {
  const adapters = Array.from({ length: numAdapters }, (_, index) => String(index))
  const choose = createAdapterChooser({ law: parsePopularity(law), adapters, numRequests, seed: 5, shuffle: false })
  const counts = new Array<number>(numAdapters).fill(0)
  for (let drawn = 0; drawn < numRequests; drawn += 1) {
    const index = Number(choose(null))
    counts[index] = (counts[index] ?? 0) + 1
  }
  return counts
}

/** Least-squares slope of y over x. */
function slope(points: readonly (readonly [number, number])[]): number {
  const meanX = points.reduce((sum, [x]) => sum + x, 0) / points.length
  const meanY = points.reduce((sum, [, y]) => sum + y, 0) / points.length
  const over = points.reduce((sum, [x, y]) => sum + (x - meanX) * (y - meanY), 0)
  return over / points.reduce((sum, [x]) => sum + (x - meanX) ** 2, 0)
}

test('the Zipf exponent is recovered from the counts', () => {
  for (const exponent of [0.8, 1, 1.5]) {
    const points = countsOf(`zipf:${exponent}`, 20).map((count, index) => [Math.log(index + 1), Math.log(count)] as const)
    assert.ok(Math.abs(slope(points) + exponent) < 0.05, `slope ${slope(points)}`)
  }
})

test('the power exponent is recovered, and the top shares are those of S-LoRA', () => {
  for (const [alpha, top] of [
    [0.1, 0.589],
    [0.3, 0.204],
    [0.6, 0.042],
  ] as const) {
    const counts = countsOf(`power:${alpha}`, 200)
    assert.ok(Math.abs((counts[0] ?? 0) / DRAWS - top) < 0.005, `top ${counts[0]}`)
    let cumulated = 0
    const points = counts.slice(0, -1).map((count, index) => {
      cumulated += count
      return [Math.log((index + 1) / 200), Math.log(cumulated / DRAWS)] as const
    })
    assert.ok(Math.abs(slope(points) - alpha) < 0.03, `alpha ${slope(points)}`)
  }
})

test('geometric shares fall by the base; uniform and round robin are flat', () => {
  const weights = popularityWeights(parsePopularity('geometric:2'), 4)
  assert.deepEqual(
    [...(weights ?? [])].map((weight) => weight.toFixed(4)),
    ['0.5333', '0.2667', '0.1333', '0.0667'],
  )
  const geometric = countsOf('geometric:2', 4)
  assert.ok(Math.abs((geometric[0] ?? 0) / (geometric[1] ?? 1) - 2) < 0.05)
  assert.deepEqual(countsOf('round-robin', 5), [20_000, 20_000, 20_000, 20_000, 20_000])
  for (const count of countsOf('uniform', 10)) assert.ok(Math.abs(count - 10_000) < 400)
})

test("Punica's four workloads count out as published", () => {
  assert.deepEqual(punicaCounts('punica-identical', 32), [32])
  assert.deepEqual(punicaCounts('punica-uniform', 32), [5, 5, 6, 5, 5, 6])
  assert.deepEqual(punicaCounts('punica-skewed', 32), [1, 1, 2, 3, 5, 7, 11, 2])
  assert.deepEqual(countsOf('punica-distinct', 8, 8), [1, 1, 1, 1, 1, 1, 1, 1])
  assert.deepEqual(countsOf('punica-skewed', 8, 32), [1, 1, 2, 3, 5, 7, 11, 2])
  assert.deepEqual(countsOf('punica-identical', 4, 32), [32, 0, 0, 0])
})

test('a split file names adapters and shares; a bad one says what is wrong', () => {
  const law = parseSplit('[{"name":"a","split":0.12},{"name":"b","split":0.06},{"name":"c","split":0.02}]', 'split.json')
  const choose = createAdapterChooser({ law, adapters: [], numRequests: DRAWS, seed: 1, shuffle: true })
  const counts = new Map<string, number>()
  for (let drawn = 0; drawn < DRAWS; drawn += 1) {
    const name = choose(null)
    counts.set(name, (counts.get(name) ?? 0) + 1)
  }
  assert.ok(Math.abs((counts.get('a') ?? 0) / DRAWS - 0.6) < 0.01)
  assert.ok(Math.abs((counts.get('c') ?? 0) / DRAWS - 0.1) < 0.01)
  assert.throws(() => parseSplit('[{"name":"a"}]', 'split.json'), /split\.json.*split above 0/)
})

test('as in the trace: keys map to adapters in order of appearance and wrap round', () => {
  const choose = createAdapterChooser({
    law: parsePopularity('trace'),
    adapters: ['x', 'y'],
    numRequests: 4,
    seed: 1,
    shuffle: false,
  })
  assert.deepEqual(
    ['k1', 'k2', 'k1', 'k3'].map((key) => choose(key)),
    ['x', 'y', 'x', 'x'],
  )
})

test('rank is shuffled by the seed so that popularity is not load order', () => {
  const adapters = Array.from({ length: 50 }, (_, index) => String(index))
  const first = (seed: number): string =>
    createAdapterChooser({ law: parsePopularity('round-robin'), adapters, numRequests: 1, seed, shuffle: true })(null)
  assert.equal(first(3), first(3))
  assert.ok(new Set([1, 2, 3, 4, 5].map(first)).size > 1)
})

test('laws that cannot be read name the flag', () => {
  for (const text of ['power', 'geometric:1', 'zipf:x', 'pareto:2']) {
    assert.throws(() => parsePopularity(text), /--adapter-popularity/)
  }
})

test('length laws', () => {
  const random = createRandom(1, 'lengths')
  const uniform = parseLengthLaw('uniform:8:511', '--input-len')
  const drawn = Array.from({ length: DRAWS }, () => drawLength(uniform, random))
  assert.equal(Math.min(...drawn.slice(0, 50_000)), 8)
  assert.equal(Math.max(...drawn.slice(0, 50_000)), 511)
  assert.ok(Math.abs(drawn.reduce((sum, length) => sum + length, 0) / DRAWS - 259.5) < 1)
  const lognormal = parseLengthLaw('lognormal:0.8:-1:18:2048', '--input-len')
  const lengths = Array.from({ length: DRAWS }, () => drawLength(lognormal, random)).sort((a, b) => a - b)
  assert.ok(Math.abs((lengths[DRAWS / 2] ?? 0) - 17) <= 1)
  assert.deepEqual(randomRangeLaw(100, 0.25), { kind: 'uniform', low: 75, high: 125 })
  assert.deepEqual(randomRangeLaw(100, 0), { kind: 'fixed', tokens: 100 })
  assert.throws(() => parseLengthLaw('uniform:9:3', '--input-len'), /--input-len/)
})

test('fitting a request into the context keeps both sides', () => {
  assert.deepEqual(fitLengths(100, 50, 512), { inputLen: 100, outputLen: 50, clipped: false })
  assert.deepEqual(fitLengths(1020, 129, 512), { inputLen: 383, outputLen: 129, clipped: true })
  assert.deepEqual(fitLengths(74, 918, 512), { inputLen: 74, outputLen: 438, clipped: true })
  assert.deepEqual(fitLengths(4000, 4000, 512), { inputLen: 256, outputLen: 256, clipped: true })
})
