// Draws from the laws that load generators use. Each takes the stream to draw from, so that a workload replays by seed.
import type { Random } from './random.ts'

/** Exponential with the given mean. */
export function drawExponential(random: Random, mean: number): number {
  return -mean * Math.log(1 - random.next())
}

/** Standard normal (Box and Muller 1958; the second value is dropped, which keeps the draws per call fixed at two). */
export function drawNormal(random: Random): number {
  const radius = Math.sqrt(-2 * Math.log(1 - random.next()))
  return radius * Math.cos(2 * Math.PI * random.next())
}

/**
 * Gamma with mean `shape * scale` (Marsaglia and Tsang 2000).
 * Below shape 1 the paper's boost is taken in logarithms: at cv 8 the factor U^(1/shape) would underflow.
 */
export function drawGamma(random: Random, shape: number, scale: number): number {
  if (shape < 1) {
    const boost = Math.log(1 - random.next()) / shape
    return Math.exp(Math.log(drawGamma(random, shape + 1, 1)) + boost) * scale
  }
  const d = shape - 1 / 3
  const c = 1 / Math.sqrt(9 * d)
  for (;;) {
    const x = drawNormal(random)
    const v = (1 + c * x) ** 3
    if (v <= 0) continue
    if (Math.log(1 - random.next()) < 0.5 * x * x + d - d * v + d * Math.log(v)) return d * v * scale
  }
}

/** Weibull by inversion. */
export function drawWeibull(random: Random, shape: number, scale: number): number {
  return scale * (-Math.log(1 - random.next())) ** (1 / shape)
}

/** `loc + scale * exp(sigma * N)`, the parameters of scipy's lognorm, which Punica uses. */
export function drawLognormal(random: Random, sigma: number, loc: number, scale: number): number {
  return loc + scale * Math.exp(sigma * drawNormal(random))
}

/** Euler's gamma function for x > 0 (Lanczos, g = 7, nine terms; relative error below 1e-14). */
export function gammaFunction(x: number): number {
  return Math.exp(logGamma(x))
}

const LANCZOS = [
  0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059, 12.507343278686905,
  -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7,
] as const
const LANCZOS_G = 7

/** Natural logarithm of the gamma function for x > 0. */
export function logGamma(x: number): number {
  if (x < 0.5) return Math.log(Math.PI / Math.sin(Math.PI * x)) - logGamma(1 - x)
  const z = x - 1
  let sum: number = LANCZOS[0]
  for (let term = 1; term < LANCZOS.length; term += 1) sum += (LANCZOS[term] as number) / (z + term)
  const t = z + LANCZOS_G + 0.5
  return 0.5 * Math.log(2 * Math.PI) + (z + 0.5) * Math.log(t) - t + Math.log(sum)
}
