// Rotations from skew-symmetric matrices, against closed forms.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { cayley, cayleySeries, type SeriesEnd } from '../../src/adapter/formats/peft/cayley.ts'
import { createRandom, randomArray } from '../support/random-adapter.ts'

test('the Cayley transform of a skew-symmetric matrix is the rotation it stands for', () => {
  // Q = [[0, t], [-t, 0]] with t = tan(angle / 2) is a rotation by the angle.
  const [angle, t] = [0.8, Math.tan(0.4)]
  const expected = [Math.cos(angle), -Math.sin(angle), Math.sin(angle), Math.cos(angle)]
  assertNear(cayley(Float64Array.of(0, t, -t, 0), 2), expected)
  const size = 7
  const skew = skewMatrix(size, 3)
  const rotation = cayley(skew, size)
  for (let i = 0; i < size * size; i++) {
    let sum = 0
    for (let k = 0; k < size; k++) sum += rotation[Math.floor(i / size) * size + k]! * rotation[(i % size) * size + k]!
    assert.ok(Math.abs(sum - (i % (size + 1) === 0 ? 1 : 0)) < 1e-12)
  }
})

test('the Cayley series, by terms and by the version that trained it', () => {
  // Of [[0, q], [-q, 0]] the powers are q, -q², -q³, q⁴ times the unit or the matrix.
  const q = 0.3
  const of = (terms: number, end: SeriesEnd) => cayleySeries(Float64Array.of(0, q, -q, 0), 2, terms, end).slice(0, 2)
  const cases: readonly (readonly [terms: number, end: SeriesEnd, even: number, odd: number])[] = [
    [1, 'single', 1, 0],
    [2, 'single', 1, 2 * q],
    [3, 'single', 1 - 2 * q ** 2, 2 * q - q ** 3],
    [4, 'single', 1 - 2 * q ** 2, 2 * q - q ** 3],
    [5, 'single', 1 - 2 * q ** 2 + q ** 4, 2 * q - 2 * q ** 3],
    [1, 'doubled', 1, 0],
    [3, 'doubled', 1 - 2 * q ** 2, 2 * q],
    [5, 'doubled', 1 - 2 * q ** 2 + 2 * q ** 4, 2 * q - 2 * q ** 3],
  ]
  for (const [terms, end, even, odd] of cases) assertNear(of(terms, end), [even, odd])
  const size = 5
  const skew = skewMatrix(size, 0.05)
  const [exact, series] = [cayley(skew, size), cayleySeries(skew, size, 60, 'doubled')]
  for (let i = 0; i < size * size; i++) {
    const mirrored = exact[(i % size) * size + Math.floor(i / size)]!
    assert.ok(Math.abs(series[i]! - mirrored) < 1e-12, 'the series expands the transpose')
  }
})

function skewMatrix(size: number, amplitude: number): Float64Array {
  const upper = randomArray(createRandom(3), size * size, amplitude)
  return Float64Array.from(upper, (_, i) => {
    const [row, column] = [Math.floor(i / size), i % size]
    return row === column ? 0 : row < column ? upper[i]! : -upper[column * size + row]!
  })
}

function assertNear(found: ArrayLike<number>, expected: readonly number[]): void {
  assert.equal(found.length, expected.length)
  for (const [i, value] of expected.entries())
    assert.ok(Math.abs(found[i]! - value) < 1e-12, `${i}: ${found[i]} beside ${value}`)
}
