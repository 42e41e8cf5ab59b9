// Rotary position embedding (RoFormer, arXiv:2104.09864) in the rotate-half layout, with the scalings of RopeScaling.

import { invariant } from '../core/invariant.ts'
import type { RopeScaling, RopeSpec } from './decoder-spec.ts'

/**
 * Fills cos and sin, [numTokens, rotaryDim / 2] each, for the first `numTokens` of `positions`.
 *
 * Exponents, frequencies and angles are rounded to float32 one after the other, as in the libraries that trained the
 * models: exact arithmetic would drift from theirs by about 1e-7 of the angle, which is 1e-2 radians at position 100,000.
 */
export function fillRope(spec: RopeSpec, positions: Int32Array, numTokens: number, cos: Float32Array, sin: Float32Array): void {
  const half = spec.rotaryDim / 2
  invariant(cos.length >= numTokens * half && sin.length >= numTokens * half, 'rope tables are too small')
  const frequencies = inverseFrequencies(spec)
  for (let token = 0; token < numTokens; token++) {
    const position = positions[token] as number
    const ofToken = isBeyondOriginal(spec.scaling, position) ? inverseFrequencies(spec, position) : frequencies
    for (let i = 0; i < half; i++) {
      const angle = Math.fround((ofToken[i] as number) * position)
      cos[token * half + i] = Math.cos(angle)
      sin[token * half + i] = Math.sin(angle)
    }
  }
}

/** Radians a position for each pair, [rotaryDim / 2]. `position` matters to dynamic scaling only. */
export function inverseFrequencies(spec: RopeSpec, position = 0): Float32Array {
  const { rotaryDim, scaling } = spec
  const theta = scaling?.kind === 'dynamic' ? dynamicTheta(spec, scaling, position) : spec.theta
  const frequencies = new Float32Array(rotaryDim / 2)
  for (let i = 0; i < frequencies.length; i++) {
    frequencies[i] = 1 / Math.fround(theta ** Math.fround((2 * i) / rotaryDim))
  }
  if (scaling?.kind === 'linear') return frequencies.map((frequency) => frequency / scaling.factor)
  if (scaling?.kind === 'llama3') return frequencies.map((frequency) => llama3Frequency(scaling, frequency))
  return frequencies
}

function isBeyondOriginal(scaling: RopeScaling | null, position: number): boolean {
  return scaling?.kind === 'dynamic' && position >= scaling.originalMaxPositions
}

/**
 * "NTK-aware" scaling whose base grows with the sequence. HF transformers rotates every token of one forward pass by the
 * length that pass reaches, so its result depends on how a prompt was cut. Here the token at position p always uses length
 * p + 1: what HF computes when it decodes token by token, and the only reading under which chunked prefill, prefix caching
 * and recompute after preemption agree with each other.
 */
function dynamicTheta(spec: RopeSpec, scaling: RopeScaling & { kind: 'dynamic' }, position: number): number {
  const { factor, originalMaxPositions } = scaling
  const length = Math.max(position + 1, originalMaxPositions)
  const growth = (factor * length) / originalMaxPositions - (factor - 1)
  return spec.theta * growth ** (spec.rotaryDim / (spec.rotaryDim - 2))
}

/** Llama 3.1: long wavelengths are stretched, short ones kept, those between are blended. */
function llama3Frequency(scaling: RopeScaling & { kind: 'llama3' }, frequency: number): number {
  const { factor, lowFreqFactor, highFreqFactor, originalMaxPositions } = scaling
  const turns = (originalMaxPositions * frequency) / (2 * Math.PI)
  if (turns < lowFreqFactor) return frequency / factor
  if (turns > highFreqFactor) return frequency
  const blend = (turns - lowFreqFactor) / (highFreqFactor - lowFreqFactor)
  return (1 - blend) * (frequency / factor) + blend * frequency
}
