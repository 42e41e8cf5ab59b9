// Reference statistics for tests of random generators: cumulative distributions and the Kolmogorov-Smirnov distance.

export function mean(values: ArrayLike<number>): number {
  let sum = 0
  for (let index = 0; index < values.length; index += 1) sum += values[index]!
  return sum / values.length
}

/** Standard deviation over mean. */
export function coefficientOfVariation(values: ArrayLike<number>): number {
  const centre = mean(values)
  let squares = 0
  for (let index = 0; index < values.length; index += 1) squares += (values[index]! - centre) ** 2
  return Math.sqrt(squares / values.length) / centre
}

/** Largest distance between the empirical distribution and `cdf`. */
export function kolmogorovSmirnov(values: Float64Array, cdf: (x: number) => number): number {
  const sorted = values.slice().sort()
  let distance = 0
  for (let index = 0; index < sorted.length; index += 1) {
    const expected = cdf(sorted[index]!)
    distance = Math.max(distance, expected - index / sorted.length, (index + 1) / sorted.length - expected)
  }
  return distance
}

/** Critical distance at significance 0.1 % for n draws (asymptotic). */
export function kolmogorovSmirnovLimit(n: number): number {
  return 1.949 / Math.sqrt(n)
}

/** Regularised lower incomplete gamma function P(a, x): series below a + 1, continued fraction above (Lentz). */
export function gammaCdf(a: number, x: number, logGammaOfA: number): number {
  if (x <= 0) return 0
  const front = Math.exp(-x + a * Math.log(x) - logGammaOfA)
  if (x < a + 1) {
    let term = 1 / a
    let sum = term
    for (let n = 1; n < 500 && Math.abs(term) > 1e-16 * Math.abs(sum); n += 1) {
      term *= x / (a + n)
      sum += term
    }
    return sum * front
  }
  let b = x + 1 - a
  let c = 1e300
  let d = 1 / b
  let h = d
  for (let n = 1; n < 500; n += 1) {
    const an = -n * (n - a)
    b += 2
    d = 1 / (an * d + b)
    c = b + an / c
    const delta = d * c
    h *= delta
    if (Math.abs(delta - 1) < 1e-15) break
  }
  return 1 - front * h
}
