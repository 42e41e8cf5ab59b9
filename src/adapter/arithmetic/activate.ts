import type { BottleneckActivation } from '../primitive.ts'

/** Slope of leaky ReLU below zero: the default of PyTorch, which no adapter format stores. */
export const LEAKY_SLOPE = 0.01

export function activate(activation: BottleneckActivation, x: number): number {
  switch (activation) {
    case 'silu':
      return x / (1 + Math.exp(-x))
    case 'gelu':
      return 0.5 * x * (1 + erf(x * Math.SQRT1_2))
    case 'gelu-tanh':
      return 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)))
    case 'relu':
      return Math.max(0, x)
    case 'leaky-relu':
      return x < 0 ? LEAKY_SLOPE * x : x
    case 'tanh':
      return Math.tanh(x)
    case 'sigmoid':
      return sigmoid(x)
    case 'identity':
      return x
  }
}

export function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x))
}

/** Beyond it erf is 1 to the last bit of a float64. */
const ERF_SATURATION = 6

/** The series of Abramowitz and Stegun 7.1.6: every term has one sign, so it is exact to rounding wherever it is cut. */
export function erf(x: number): number {
  if (Math.abs(x) >= ERF_SATURATION) return Math.sign(x)
  let term = x
  let sum = x
  for (let n = 1; Math.abs(term) > Math.abs(sum) * Number.EPSILON; n++) {
    term *= (2 * x * x) / (2 * n + 1)
    sum += term
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum
}
