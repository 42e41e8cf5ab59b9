import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { openSafetensors, readTensorF32 } from '../../src/model/safetensors.ts'

export const GOLDEN_MODELS = [
  'llama',
  'llama3rope',
  'mistral',
  'qwen2',
  'qwen3',
  'gemma2',
  'gemma3',
  'olmo2',
  'phi3',
  'gpt2',
  'mixtral',
  'qwen3moe',
] as const

export interface GoldenCase {
  readonly prompt: readonly number[]
  readonly tokens: readonly number[]
}

export function goldenModelDir(name: string): string {
  return join(import.meta.dirname, '../fixtures/models', name)
}

/** `dir` holds expected.json in the format that test/fixtures/models/README.md describes. */
export function readGoldenCases(dir: string): readonly GoldenCase[] {
  return JSON.parse(readFileSync(join(dir, 'expected.json'), 'utf8')).cases
}

/** Logits before the first tokens of case 0, [4, 320]. */
export function readGoldenLogits(dir: string): Float32Array {
  return readTensorF32(openSafetensors(join(dir, 'expected.safetensors')).tensors.get('logits_0')!)
}

/** ‖found - expected‖ / ‖expected‖; NaN never passes a comparison with it. */
export function relativeError(found: Float32Array, expected: Float32Array): number {
  if (found.length !== expected.length) throw new Error(`${found.length} values beside ${expected.length}`)
  return norm(found.map((value, i) => value - expected[i]!)) / norm(expected)
}

/** Whether rounding of `relative` of the row cannot change which logit is largest. */
export function isClearChoice(expected: Float32Array, relative: number): boolean {
  const [best = 0, second = 0] = expected.toSorted((a, b) => b - a)
  return best - second > relative * norm(expected)
}

function norm(values: Float32Array): number {
  return Math.sqrt(values.reduce((sum, value) => sum + value * value, 0))
}

export function maxAbsDiff(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) throw new Error(`${a.length} values beside ${b.length}`)
  return a.reduce((largest, value, i) => Math.max(largest, Math.abs(value - b[i]!)), 0)
}
