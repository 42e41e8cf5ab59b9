// Picks the next token of one row of logits. Order of operations as vLLM's: adjustments, greedy or temperature,
// then min-p, top-k, top-p. One scratch set for all rows; the backend's logits are never written.

import type { SamplingParams } from '../core/sampling-params.ts'
import { adjustLogits, hasAdjustments, type SamplingState } from './logit-adjustments.ts'
import { kthLargest, nucleusThreshold, topIndices } from './selection.ts'
import { uniform } from './uniform.ts'

/**
 * Candidates this far below the best, after temperature, are dropped: e^-30 times the largest vocabulary in use (262,144)
 * is 2.5e-8, under the resolution of a float32 probability, and most of a real distribution is that far down.
 */
const NEGLIGIBLE_LOGIT_GAP = 30

/** Up to here a heap finds the k-th largest of a vocabulary faster than a selection, which must copy it first. */
const MAX_HEAP_K = 256

/** Index of the largest value, the lowest where several are equal; -1 when all are NaN or -Infinity. */
export function argmax(values: Float32Array): number {
  let best = -1
  let bestValue = -Infinity
  for (let i = 0; i < values.length; i++) {
    const value = values[i] as number
    if (value > bestValue) {
      bestValue = value
      best = i
    }
  }
  return best
}

export class Sampler {
  readonly #adjusted: Float32Array // [vocabSize]
  readonly #candidateIds: Int32Array // [vocabSize]
  readonly #weights: Float32Array // [vocabSize]
  readonly #selection: Float32Array // [vocabSize]
  #numCandidates = 0

  constructor(vocabSize: number) {
    this.#adjusted = new Float32Array(vocabSize)
    this.#candidateIds = new Int32Array(vocabSize)
    this.#weights = new Float32Array(vocabSize)
    this.#selection = new Float32Array(vocabSize)
  }

  /** The next token of a request whose raw logits are `raw` [vocabSize]; null when no logit is a number above -Infinity. */
  sample(raw: Float32Array, state: SamplingState): number | null {
    let logits = raw
    if (hasAdjustments(state)) {
      logits = this.#adjusted
      logits.set(raw)
      adjustLogits(logits, state)
    }
    let best = argmax(logits)
    // Every token is masked (say, only EOS is allowed and min_tokens forbids it): the model's own choice, not an endless loop.
    if (best < 0) best = argmax(raw)
    if (best < 0) return null
    const { temperature } = state.sampling
    const bestLogit = logits[best] as number
    if (temperature === 0 || !Number.isFinite(bestLogit)) return best
    this.#collect(logits, this.#lowestKept(logits, bestLogit, state.sampling), bestLogit, temperature)
    this.#keepTopP(state.sampling.topP)
    return this.#draw(uniform(state.seed, state.numOutputTokens))
  }

  /** Min-p and top-k are both thresholds on logits, so no weight of what they drop is ever computed. */
  #lowestKept(logits: Float32Array, bestLogit: number, { temperature, minP, topK }: SamplingParams): number {
    const gap = minP > 0 ? Math.min(NEGLIGIBLE_LOGIT_GAP, -Math.log(minP)) : NEGLIGIBLE_LOGIT_GAP
    const floor = bestLogit - gap * temperature
    if (topK <= 0 || topK >= logits.length) return floor
    const kth = this.#kthLogit(logits, topK)
    return kth > floor ? kth : floor
  }

  /** Ties with the k-th stay, as in vLLM. */
  #kthLogit(logits: Float32Array, k: number): number {
    if (k <= MAX_HEAP_K) return logits[topIndices(logits, logits.length, k)[k - 1] as number] as number
    this.#selection.set(logits)
    return kthLargest(this.#selection, logits.length, k)
  }

  /** Candidates in order of token id, with weights exp((logit - best) / temperature). */
  #collect(logits: Float32Array, floor: number, bestLogit: number, temperature: number): void {
    const inverseTemperature = 1 / temperature
    let n = 0
    for (let id = 0; id < logits.length; id++) {
      const logit = logits[id] as number
      if (!(logit >= floor)) continue
      this.#candidateIds[n] = id
      this.#weights[n] = Math.exp((logit - bestLogit) * inverseTemperature)
      n++
    }
    this.#numCandidates = n
  }

  /** The smallest set, best first, whose probability reaches `topP` (Holtzman et al. 2020); ties by lowest id. */
  #keepTopP(topP: number): void {
    if (topP >= 1 || this.#numCandidates <= 1) return
    const total = this.#totalWeight()
    const mass = topP * total
    // All weights below this sum to less than what the nucleus leaves out, so none of them is in it: most go without a selection.
    this.#keepAbove(((1 - topP) * total) / this.#numCandidates, this.#numCandidates)
    const threshold = nucleusThreshold(this.#copyWeights(), this.#numCandidates, mass)
    let massAbove = 0
    for (let i = 0; i < this.#numCandidates; i++) {
      const weight = this.#weights[i] as number
      if (weight > threshold) massAbove += weight
    }
    // At least one of those at the threshold is needed, whatever rounding says.
    this.#keepAbove(threshold, threshold > 0 ? Math.max(1, Math.ceil((mass - massAbove) / threshold)) : 1)
  }

  /** Keeps candidates over `threshold`, and the first `numEqual` of those equal to it. */
  #keepAbove(threshold: number, numEqual: number): void {
    let n = 0
    let numEqualLeft = numEqual
    for (let i = 0; i < this.#numCandidates; i++) {
      const weight = this.#weights[i] as number
      if (weight < threshold || (weight === threshold && numEqualLeft-- <= 0)) continue
      this.#candidateIds[n] = this.#candidateIds[i] as number
      this.#weights[n] = weight
      n++
    }
    this.#numCandidates = n
  }

  #draw(u: number): number {
    let left = u * this.#totalWeight()
    for (let i = 0; i < this.#numCandidates; i++) {
      left -= this.#weights[i] as number
      if (left < 0) return this.#candidateIds[i] as number
    }
    return this.#candidateIds[this.#numCandidates - 1] as number
  }

  #totalWeight(): number {
    let total = 0
    for (let i = 0; i < this.#numCandidates; i++) total += this.#weights[i] as number
    return total
  }

  #copyWeights(): Float32Array {
    for (let i = 0; i < this.#numCandidates; i++) this.#selection[i] = this.#weights[i] as number
    return this.#selection
  }
}
