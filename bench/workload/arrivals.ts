// When requests are sent: open-loop arrival processes as iterators of offsets from the start of the run, in seconds.
import { LorikeetError } from '../../src/errors.ts'
import { drawGamma } from '../random/distributions.ts'
import { createRandom } from '../random/random.ts'

export type RampShape = 'linear' | 'exponential'

export interface ArrivalOptions {
  /** Requests a second; Infinity = all at once. */
  readonly rate: number
  /**
   * Shape of the Gamma law of the gaps: 1 is Poisson, Infinity constant gaps; cv = 1 / sqrt(burstiness).
   * vLLM's `--burstiness`; S-LoRA's cv is `burstinessOfCv(cv)`.
   */
  readonly burstiness: number
  readonly numRequests: number
  /** Stretch the gaps so that the last arrival falls at exactly numRequests / rate, as vLLM does; S-LoRA and SGLang do not. */
  readonly normalize: boolean
  /** The rate moves from `from` to `to` over the requests; normalisation is off then, as in vLLM. */
  readonly ramp: { readonly shape: RampShape; readonly from: number; readonly to: number } | null
  readonly seed: number
}

/** vLLM's burstiness b of S-LoRA's coefficient of variation c: b = 1 / c². */
export function burstinessOfCv(cv: number): number {
  return 1 / (cv * cv)
}

/** Arrival offsets in seconds, never decreasing. Memory is constant: normalising walks the seeded gaps twice. */
export function* arrivals(options: ArrivalOptions): Generator<number> {
  checkArrivals(options)
  const factor = options.normalize && options.ramp === null ? normalizingFactor(options) : 1
  let offset = 0
  for (const gap of gaps(options)) {
    offset += gap
    yield offset * factor
  }
}

function normalizingFactor(options: ArrivalOptions): number {
  if (!Number.isFinite(options.rate)) return 1
  let total = 0
  for (const gap of gaps(options)) total += gap
  return total > 0 ? options.numRequests / options.rate / total : 1
}

function* gaps(options: ArrivalOptions): Generator<number> {
  const random = createRandom(options.seed, 'arrivals')
  for (let index = 0; index < options.numRequests; index += 1) {
    const rate = rateAt(options, index)
    if (rate === Number.POSITIVE_INFINITY) yield 0
    else if (options.burstiness === Number.POSITIVE_INFINITY) yield 1 / rate
    else yield drawGamma(random, options.burstiness, 1 / (rate * options.burstiness))
  }
}

function rateAt(options: ArrivalOptions, index: number): number {
  const ramp = options.ramp
  if (ramp === null) return options.rate
  const progress = index / Math.max(options.numRequests - 1, 1)
  if (ramp.shape === 'linear') return ramp.from + (ramp.to - ramp.from) * progress
  return ramp.from * (ramp.to / ramp.from) ** progress
}

function checkArrivals(options: ArrivalOptions): void {
  const bad = (option: string, reason: string): never => {
    throw new LorikeetError('CONFIG_INVALID', { option, reason })
  }
  if (!(options.rate > 0)) bad('--request-rate', `must be above 0, got ${options.rate}`)
  if (!(options.burstiness > 0)) bad('--burstiness', `must be above 0, got ${options.burstiness}`)
  const ramp = options.ramp
  if (ramp !== null && !(ramp.from > 0 && ramp.to > 0 && Number.isFinite(ramp.from + ramp.to))) {
    bad('--ramp-up-start-rps', 'both ends of a ramp must be finite and above 0')
  }
}
