import assert from 'node:assert/strict'
import { test } from 'node:test'
import { drawGamma, drawLognormal, drawWeibull, gammaFunction, logGamma } from '../../bench/random/distributions.ts'
import { createRandom } from '../../bench/random/random.ts'
import { type ArrivalOptions, arrivals, burstinessOfCv } from '../../bench/workload/arrivals.ts'
import { coefficientOfVariation, gammaCdf, kolmogorovSmirnov, kolmogorovSmirnovLimit, mean } from '../support/statistics.ts'

const DRAWS = 100_000

const base: ArrivalOptions = { rate: 5, burstiness: 1, numRequests: DRAWS, normalize: false, ramp: null, seed: 1 }

function gapsOf(options: ArrivalOptions): Float64Array {
  const gaps = new Float64Array(options.numRequests)
  let previous = 0
  let index = 0
  for (const offset of arrivals(options)) {
    gaps[index] = offset - previous
    previous = offset
    index += 1
  }
  assert.equal(index, options.numRequests)
  return gaps
}

for (const cv of [0.25, 0.5, 1, 2]) {
  test(`Gamma gaps of cv ${cv}: mean and cv within 2 %, Kolmogorov-Smirnov`, () => {
    const shape = burstinessOfCv(cv)
    const gaps = gapsOf({ ...base, burstiness: shape })
    assert.ok(Math.abs(mean(gaps) * base.rate - 1) < 0.02, `mean ${mean(gaps)}`)
    assert.ok(Math.abs(coefficientOfVariation(gaps) / cv - 1) < 0.02, `cv ${coefficientOfVariation(gaps)}`)
    const logGammaOfShape = logGamma(shape)
    const distance = kolmogorovSmirnov(gaps, (x) => gammaCdf(shape, x * base.rate * shape, logGammaOfShape))
    assert.ok(distance < kolmogorovSmirnovLimit(DRAWS), `distance ${distance}`)
  })
}

test('very bursty Gamma gaps (cv 8, shape 1/64) follow their law and never underflow to a wrong one', () => {
  const shape = burstinessOfCv(8)
  const random = createRandom(7, 'test')
  const draws = Float64Array.from({ length: DRAWS }, () => drawGamma(random, shape, 1))
  const logGammaOfShape = logGamma(shape)
  assert.ok(kolmogorovSmirnov(draws, (x) => gammaCdf(shape, x, logGammaOfShape)) < kolmogorovSmirnovLimit(DRAWS))
})

test('Weibull and lognormal draws follow their laws', () => {
  const random = createRandom(3, 'test')
  const weibull = Float64Array.from({ length: DRAWS }, () => drawWeibull(random, 0.7, 2))
  assert.ok(kolmogorovSmirnov(weibull, (x) => 1 - Math.exp(-((x / 2) ** 0.7))) < kolmogorovSmirnovLimit(DRAWS))
  assert.ok(Math.abs(mean(weibull) / (2 * gammaFunction(1 + 1 / 0.7)) - 1) < 0.02)
  const lognormal = Float64Array.from({ length: DRAWS }, () => drawLognormal(random, 0.8, -1, 18))
  assert.ok(Math.abs(mean(lognormal) / (18 * Math.exp(0.32) - 1) - 1) < 0.02)
})

test('constant, all at once, and normalised arrivals', () => {
  const constant = [...arrivals({ ...base, burstiness: Number.POSITIVE_INFINITY, numRequests: 4 })]
  assert.deepEqual(constant, [0.2, 0.4, 0.6000000000000001, 0.8])
  assert.deepEqual([...arrivals({ ...base, rate: Number.POSITIVE_INFINITY, numRequests: 3 })], [0, 0, 0])
  const normalized = [...arrivals({ ...base, numRequests: 100, normalize: true })]
  assert.ok(Math.abs((normalized.at(-1) ?? 0) - 20) < 1e-9, 'the last arrival is at N / rate')
  assert.notEqual([...arrivals({ ...base, numRequests: 100 })].at(-1)?.toFixed(6), '20.000000')
})

test('a ramp moves the mean gap from one rate to the other', () => {
  for (const shape of ['linear', 'exponential'] as const) {
    const gaps = gapsOf({ ...base, burstiness: Number.POSITIVE_INFINITY, numRequests: 101, ramp: { shape, from: 1, to: 100 } })
    assert.ok(Math.abs((gaps[0] ?? 0) - 1) < 1e-9)
    assert.ok(Math.abs((gaps[100] ?? 0) - 0.01) < 1e-9)
    const middle = shape === 'linear' ? 1 / 50.5 : 0.1
    assert.ok(Math.abs((gaps[50] ?? 0) - middle) < 1e-9)
  }
})

test('the same seed gives the same arrivals, another seed others; streams of one seed are independent', () => {
  const take = (seed: number): number[] => [...arrivals({ ...base, numRequests: 50, seed })]
  assert.deepEqual(take(1), take(1))
  assert.notDeepEqual(take(1), take(2))
  assert.notEqual(createRandom(1, 'a').next(), createRandom(1, 'b').next())
})

test('a rate or burstiness of zero is refused by name', () => {
  assert.throws(() => [...arrivals({ ...base, rate: 0 })], /--request-rate/)
  assert.throws(() => [...arrivals({ ...base, burstiness: 0 })], /--burstiness/)
})
