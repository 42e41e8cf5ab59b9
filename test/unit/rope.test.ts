import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { RopeScaling, RopeSpec } from '../../src/model/decoder-spec.ts'
import { fillRope, inverseFrequencies } from '../../src/model/rope.ts'

const spec = (scaling: RopeScaling | null, rotaryDim = 8, theta = 10_000): RopeSpec => ({ rotaryDim, theta, scaling })

function assertClose(found: ArrayLike<number>, expected: readonly number[], tolerance = 1e-6): void {
  assert.equal(found.length, expected.length)
  expected.forEach((value, i) => {
    assert.ok(Math.abs(found[i]! - value) <= tolerance * Math.max(1, Math.abs(value)), `${i}: ${found[i]} and ${value}`)
  })
}

function tablesOf(rope: RopeSpec, positions: readonly number[]): { cos: Float32Array; sin: Float32Array } {
  const half = rope.rotaryDim / 2
  const [cos, sin] = [new Float32Array(positions.length * half), new Float32Array(positions.length * half)]
  fillRope(rope, Int32Array.from(positions), positions.length, cos, sin)
  return { cos, sin }
}

test('without scaling, pair i turns by theta^(-2i/dim) a position', () => {
  assertClose(inverseFrequencies(spec(null)), [1, 0.1, 0.01, 0.001])
  const { cos, sin } = tablesOf(spec(null), [0, 3])
  assertClose(cos, [1, 1, 1, 1, Math.cos(3), Math.cos(0.3), Math.cos(0.03), Math.cos(0.003)])
  assertClose(sin, [0, 0, 0, 0, Math.sin(3), Math.sin(0.3), Math.sin(0.03), Math.sin(0.003)])
})

test('linear scaling divides every frequency', () => {
  assertClose(inverseFrequencies(spec({ kind: 'linear', factor: 4 })), [0.25, 0.025, 0.0025, 0.00025])
})

test('llama3 scaling keeps short waves, divides long ones and blends between', () => {
  const scaling = { kind: 'llama3', factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositions: 100 } as const
  const frequencies = inverseFrequencies(spec(scaling))
  // Turns within 100 positions: 15.9, 1.59, 0.159, 0.0159.
  const blend = ((100 * 0.1) / (2 * Math.PI) - 1) / 3
  assertClose(frequencies, [1, (1 - blend) * (0.1 / 8) + blend * 0.1, 0.01 / 8, 0.001 / 8])
})

test('dynamic scaling leaves positions within the original length alone', () => {
  const dynamic = spec({ kind: 'dynamic', factor: 2, originalMaxPositions: 16 })
  assert.deepEqual(tablesOf(dynamic, [0, 7, 15]), tablesOf(spec(null), [0, 7, 15]))
})

test('dynamic scaling beyond it uses the length that ends at the token', () => {
  const dynamic = spec({ kind: 'dynamic', factor: 2, originalMaxPositions: 16 })
  const growth = (2 * 24) / 16 - 1
  const theta = 10_000 * growth ** (8 / 6)
  assertClose(
    inverseFrequencies(dynamic, 23),
    [0, 1, 2, 3].map((i) => theta ** (-i / 4)),
  )
})

test('dynamic scaling gives a token the same angles whatever shares its step', () => {
  const dynamic = spec({ kind: 'dynamic', factor: 2, originalMaxPositions: 16 })
  const together = tablesOf(dynamic, [14, 20, 40])
  const alone = tablesOf(dynamic, [20])
  assert.deepEqual(together.cos.slice(4, 8), alone.cos)
  assert.deepEqual(together.sin.slice(4, 8), alone.sin)
})

test('angles are float32 products, as the training libraries compute them', () => {
  const { cos } = tablesOf(spec(null, 2), [131_071])
  assert.equal(cos[0], Math.fround(Math.cos(131_071)))
  const frequency = Math.fround(1 / Math.fround(500_000 ** Math.fround(2 / 8)))
  const { sin } = tablesOf(spec(null, 8, 500_000), [100_003])
  assert.equal(sin[1], Math.fround(Math.sin(Math.fround(frequency * 100_003))))
})
