// How long prompts and answers are: synthetic laws, and the rule that fits a trace's lengths into the served context.
import { LorikeetError } from '../../src/errors.ts'
import { drawLognormal } from '../random/distributions.ts'
import { drawIndex, type Random } from '../random/random.ts'

export type LengthLaw =
  | { readonly kind: 'fixed'; readonly tokens: number }
  /** Integers in [low, high], both ends included. */
  | { readonly kind: 'uniform'; readonly low: number; readonly high: number }
  /** scipy's lognorm(sigma, loc, scale), rounded and clipped to [1, max]. */
  | { readonly kind: 'lognormal'; readonly sigma: number; readonly loc: number; readonly scale: number; readonly max: number }

/** Reads `128`, `uniform:8:511`, `lognormal:0.8:-1:18:2048`. */
export function parseLengthLaw(text: string, option: string): LengthLaw {
  const [kind = '', ...rest] = text.split(':')
  const values = rest.map(Number)
  const bad = (): LorikeetError =>
    new LorikeetError('CONFIG_INVALID', {
      option,
      reason: `${text}: use N, uniform:LOW:HIGH or lognormal:SIGMA:LOC:SCALE:MAX, in tokens`,
    })
  if (values.some((value) => !Number.isFinite(value))) throw bad()
  if (kind === 'uniform' && values.length === 2) {
    const [low = 0, high = 0] = values
    if (low < 1 || high < low) throw bad()
    return { kind, low: Math.floor(low), high: Math.floor(high) }
  }
  if (kind === 'lognormal' && values.length === 4) {
    const [sigma = 0, loc = 0, scale = 0, max = 0] = values
    if (sigma <= 0 || scale <= 0 || max < 1) throw bad()
    return { kind, sigma, loc, scale, max }
  }
  const tokens = Number(kind)
  if (values.length > 0 || !Number.isInteger(tokens) || tokens < 1) throw bad()
  return { kind: 'fixed', tokens }
}

/** vLLM's `random` data set: uniform integers in [floor(L(1-r)), ceil(L(1+r))], at least 1. */
export function randomRangeLaw(tokens: number, rangeRatio: number): LengthLaw {
  if (rangeRatio === 0) return { kind: 'fixed', tokens }
  return {
    kind: 'uniform',
    low: Math.max(1, Math.floor(tokens * (1 - rangeRatio))),
    high: Math.max(1, Math.ceil(tokens * (1 + rangeRatio))),
  }
}

export function drawLength(law: LengthLaw, random: Random): number {
  switch (law.kind) {
    case 'fixed':
      return law.tokens
    case 'uniform':
      return law.low + drawIndex(random, law.high - law.low + 1)
    case 'lognormal':
      return Math.min(Math.max(Math.round(drawLognormal(random, law.sigma, law.loc, law.scale)), 1), law.max)
  }
}

export interface FittedLengths {
  readonly inputLen: number
  readonly outputLen: number
  readonly clipped: boolean
}

/**
 * Cuts a request down to a context of `maxModelLen` tokens. The answer keeps what the prompt leaves, or half the context,
 * whichever is more; the prompt then keeps the rest. So neither side is cut below half because of the other.
 */
export function fitLengths(inputLen: number, outputLen: number, maxModelLen: number): FittedLengths {
  const fittedOutput = Math.max(1, Math.min(outputLen, Math.max(maxModelLen - inputLen, Math.floor(maxModelLen / 2))))
  const fittedInput = Math.max(1, Math.min(inputLen, maxModelLen - fittedOutput))
  return {
    inputLen: fittedInput,
    outputLen: fittedOutput,
    clipped: fittedInput < inputLen || fittedOutput < outputLen,
  }
}
