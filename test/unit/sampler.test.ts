import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { SamplingParams } from '../../src/core/sampling-params.ts'
import type { SamplingState } from '../../src/engine/logit-adjustments.ts'
import { Sampler } from '../../src/engine/sampler.ts'
import { kthLargest, nucleusThreshold, topIndices } from '../../src/engine/selection.ts'
import { tokenLogprobs } from '../../src/engine/token-logprobs.ts'
import { uniform } from '../../src/engine/uniform.ts'
import { GREEDY, randomSource } from '../support/engine-harness.ts'
import { kolmogorovSmirnov, kolmogorovSmirnovLimit } from '../support/statistics.ts'

function state(sampling: Partial<SamplingParams>, promptIds: number[] = [], output: number[] = []): SamplingState {
  const outputCounts = new Map<number, number>()
  for (const id of output) outputCounts.set(id, (outputCounts.get(id) ?? 0) + 1)
  return {
    sampling: { ...GREEDY, ...sampling },
    seed: 1,
    tokens: Int32Array.from([...promptIds, ...output]),
    numTokens: promptIds.length + output.length,
    numPromptTokens: promptIds.length,
    numOutputTokens: output.length,
    outputCounts,
    promptTokenSet: new Set(promptIds),
  }
}

function pick(
  logits: number[],
  sampling: Partial<SamplingParams>,
  promptIds: number[] = [],
  output: number[] = [],
): number | null {
  return new Sampler(logits.length).sample(Float32Array.from(logits), state(sampling, promptIds, output))
}

/** Share of each token over many seeds. */
function shares(logits: number[], sampling: Partial<SamplingParams>, numDraws = 20_000): number[] {
  const sampler = new Sampler(logits.length)
  const row = Float32Array.from(logits)
  const counts = new Array<number>(logits.length).fill(0)
  const base = state({ temperature: 1, ...sampling })
  for (let seed = 0; seed < numDraws; seed++) {
    const id = sampler.sample(row, { ...base, seed })
    assert.ok(id !== null)
    counts[id]!++
  }
  return counts.map((count) => count / numDraws)
}

function softmax(logits: number[], temperature = 1): number[] {
  const max = Math.max(...logits)
  const weights = logits.map((logit) => Math.exp((logit - max) / temperature))
  const sum = weights.reduce((a, b) => a + b)
  return weights.map((weight) => weight / sum)
}

/** Four standard deviations of a share of 20,000 draws. */
function assertShares(actual: number[], expected: number[]): void {
  for (const [id, p] of expected.entries()) {
    const tolerance = p === 0 ? 0 : 4 * Math.sqrt((p * (1 - p)) / 20_000)
    assert.ok(Math.abs(actual[id]! - p) <= tolerance, `token ${id}: ${actual[id]} for ${p}`)
  }
}

const LOGITS = [1, 0.2, -0.5, 2, 1.4, -3]

describe('Sampler', () => {
  it('is greedy at temperature 0, ties by lowest id', () => {
    assert.equal(pick([1, 5, 3, 5], {}), 1)
    assert.equal(pick([Number.NaN, 1, 2], {}), 2)
    assert.equal(pick([Number.NaN, Number.NaN], {}), null)
  })

  it('draws from the softmax at any temperature', () => {
    assertShares(shares(LOGITS, {}), softmax(LOGITS))
    assertShares(shares(LOGITS, { temperature: 0.5 }), softmax(LOGITS, 0.5))
    assertShares(shares(LOGITS, { temperature: 2 }), softmax(LOGITS, 2))
  })

  it('keeps the top k', () => {
    const p = softmax(LOGITS)
    const sum = p[3]! + p[4]! + p[0]!
    assertShares(shares(LOGITS, { topK: 3 }), [p[0]! / sum, 0, 0, p[3]! / sum, p[4]! / sum, 0])
    assertShares(shares(LOGITS, { topK: 1 }), [0, 0, 0, 1, 0, 0])
  })

  it('keeps the smallest set that reaches top p', () => {
    const p = softmax(LOGITS)
    const sum = p[3]! + p[4]!
    // 0.443 + 0.243 < 0.7 <= with the third
    assertShares(shares(LOGITS, { topP: sum - 0.01 }), [0, 0, 0, p[3]! / sum, p[4]! / sum, 0])
    assertShares(shares(LOGITS, { topP: 0.01 }), [0, 0, 0, 1, 0, 0])
    assertShares(shares([1, 1, 1, 1], { topP: 0.5 }), [0.5, 0.5, 0, 0])
  })

  it('takes top p of what top k left', () => {
    // Of the best two (0.65, 0.35 renormalised) 0.6 needs the first only; of all six it would need two.
    assertShares(shares(LOGITS, { topK: 2, topP: 0.6 }), [0, 0, 0, 1, 0, 0])
  })

  it('keeps what min p allows', () => {
    const p = softmax(LOGITS)
    const kept = p.map((value) => (value >= 0.4 * p[3]! ? value : 0))
    const sum = kept.reduce((a, b) => a + b)
    assertShares(
      shares(LOGITS, { minP: 0.4 }),
      kept.map((value) => value / sum),
    )
  })

  it('applies penalties before choosing', () => {
    assert.equal(pick([2, 1.9, 0], { repetitionPenalty: 1.2 }, [0]), 1)
    assert.equal(pick([-1, -1.1, -9], { repetitionPenalty: 1.2 }, [0]), 1)
    assert.equal(pick([2, 1.9, 0], { presencePenalty: 0.5 }, [0]), 0, 'presence counts output only')
    assert.equal(pick([2, 1.9, 0], { presencePenalty: 0.5 }, [], [0]), 1)
    assert.equal(pick([2, 1.5, 0], { frequencyPenalty: 0.3 }, [], [0]), 0)
    assert.equal(pick([2, 1.5, 0], { frequencyPenalty: 0.3 }, [], [0, 0]), 1)
  })

  it('penalises a token that is in prompt and output once', () => {
    assert.equal(pick([4, 1.9], { repetitionPenalty: 2 }, [0], [0]), 0)
  })

  it('applies bias, allowed ids and bad words', () => {
    assert.equal(pick([2, 1, 0], { logitBias: [[2, 5]] }), 2)
    assert.equal(pick([2, 1, 0], { logitBias: [[0, -100]] }), 1)
    assert.equal(pick([2, 1, 0], { allowedTokenIds: [1, 2] }), 1)
    assert.equal(pick([2, 1, 0], { badWords: [[0]] }), 1)
    assert.equal(pick([2, 1, 0], { badWords: [[7, 0]] }, [], [6]), 0)
    assert.equal(pick([2, 1, 0], { badWords: [[7, 0]] }, [], [7]), 1)
    assert.equal(pick([2, 1, 0], { badWords: [[7, 0]] }, [7], []), 0, 'bad words look at output only')
  })

  it('masks eos and stop tokens until min tokens', () => {
    const sampling = { minTokens: 2, eosTokenIds: [0], stopTokenIds: [1] }
    assert.equal(pick([3, 2, 1], sampling, [], [5]), 2)
    assert.equal(pick([3, 2, 1], sampling, [], [5, 5]), 0)
  })

  it('answers with the model’s choice where every token is masked', () => {
    assert.equal(pick([1, 2, 3], { allowedTokenIds: [0], minTokens: 1, eosTokenIds: [0] }), 2)
  })

  it('depends on seed and output index only', () => {
    const row = Float32Array.from(LOGITS)
    const sampler = new Sampler(row.length)
    const draw = (seed: number, numOutput: number): number | null =>
      sampler.sample(row, { ...state({ temperature: 1.5 }, [], new Array<number>(numOutput).fill(0)), seed })
    const first = Array.from({ length: 50 }, (_, i) => draw(3, i))
    assert.deepEqual(Array.from({ length: 50 }, (_, i) => draw(3, 49 - i)).reverse(), first)
    assert.notDeepEqual(
      Array.from({ length: 50 }, (_, i) => draw(4, i)),
      first,
    )
  })

  it('leaves the backend’s logits as they are', () => {
    const row = Float32Array.from(LOGITS)
    new Sampler(row.length).sample(
      row,
      state({ temperature: 1, topK: 2, topP: 0.5, logitBias: [[0, 9]], repetitionPenalty: 2 }, [3]),
    )
    assert.deepEqual(row, Float32Array.from(LOGITS))
  })
})

describe('uniform', () => {
  it('is uniform over seeds and over indices', () => {
    const n = 20_000
    const overSeeds = Float64Array.from({ length: n }, (_, i) => uniform(i, 0))
    const overIndices = Float64Array.from({ length: n }, (_, i) => uniform(42, i))
    const overPairs = Float64Array.from({ length: n }, (_, i) => uniform(i, i))
    for (const sample of [overSeeds, overIndices, overPairs]) {
      assert.ok(kolmogorovSmirnov(sample, (x) => x) < kolmogorovSmirnovLimit(n))
    }
  })

  it('tells seeds apart that differ in their high words or sign', () => {
    const values = new Set([1, 1 + 2 ** 32, 1 + 2 ** 40, -1, -1 - 2 ** 33, 0].map((seed) => uniform(seed, 0)))
    assert.equal(values.size, 6)
  })
})

describe('selection', () => {
  const random = randomSource(1)
  const arrays = Array.from({ length: 300 }, (_, i) =>
    Float32Array.from({ length: 1 + random.below(60) }, () => (i % 3 === 0 ? random.below(4) : random.unit())),
  )

  it('finds the k-th largest', () => {
    for (const values of arrays) {
      const sorted = values.slice().sort().reverse()
      const k = 1 + random.below(values.length)
      assert.equal(kthLargest(values.slice(), values.length, k), sorted[k - 1])
    }
  })

  it('finds the nucleus threshold', () => {
    for (const values of arrays) {
      const sorted = values.slice().sort().reverse()
      const total = values.reduce((a, b) => a + b, 0)
      const mass = random.unit() * total
      let sum = 0
      let expected = sorted[0]!
      for (const value of sorted) {
        expected = value
        sum += value
        if (sum >= mass) break
      }
      assert.equal(nucleusThreshold(values.slice(), values.length, mass), expected)
    }
  })

  it('finds the top indices, ties by lowest', () => {
    for (const values of arrays) {
      const k = random.below(values.length + 3)
      const expected = [...values.keys()].sort((a, b) => values[b]! - values[a]! || a - b).slice(0, k)
      assert.deepEqual([...topIndices(values, values.length, k)], expected)
    }
  })
})

describe('tokenLogprobs', () => {
  it('is the log of the softmax, with rank and alternatives', () => {
    const p = softmax(LOGITS)
    const { logprob, rank, topTokenIds, topLogprobs } = tokenLogprobs(Float32Array.from(LOGITS), 0, 2)
    assert.ok(Math.abs(logprob - Math.log(p[0]!)) < 1e-6)
    assert.equal(rank, 3)
    assert.deepEqual([...topTokenIds], [3, 4])
    assert.ok(Math.abs(topLogprobs[0]! - Math.log(p[3]!)) < 1e-6)
  })

  it('gives the whole vocabulary for -1', () => {
    const { topLogprobs, topTokenIds } = tokenLogprobs(Float32Array.from(LOGITS), 0, -1)
    assert.equal(topTokenIds.length, LOGITS.length)
    assert.ok(Math.abs(topLogprobs.reduce((sum, value) => sum + Math.exp(value), 0) - 1) < 1e-6)
  })
})
