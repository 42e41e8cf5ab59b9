import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bf16ToF32, f16ToF32 } from '../../src/core/half.ts'

function convert(widen: (bits: Uint16Array, out: Float32Array) => void, bits: readonly number[]): readonly number[] {
  const out = new Float32Array(bits.length)
  widen(Uint16Array.from(bits), out)
  return [...out]
}

test('f16: zeros, normals, subnormals, largest, infinities, NaN', () => {
  const bits = [0x0000, 0x8000, 0x3c00, 0xc000, 0x0001, 0x8001, 0x03ff, 0x0400, 0x7bff, 0x7c00, 0xfc00]
  const values = [0, -0, 1, -2, 2 ** -24, -(2 ** -24), 1023 * 2 ** -24, 2 ** -14, 65504, Infinity, -Infinity]
  assert.deepEqual(convert(f16ToF32, bits), values)
  assert.ok(Number.isNaN(convert(f16ToF32, [0x7e00])[0]))
})

test('f16: every finite pattern means sign · mantissa · 2^exponent', () => {
  const bits = Array.from({ length: 1 << 16 }, (_, i) => i).filter((i) => ((i >> 10) & 31) !== 31)
  const expected = bits.map((i) => {
    const [sign, exponent, mantissa] = [i >> 15 ? -1 : 1, (i >> 10) & 31, i & 1023]
    return exponent === 0 ? sign * mantissa * 2 ** -24 : sign * (1 + mantissa / 1024) * 2 ** (exponent - 15)
  })
  assert.deepEqual(convert(f16ToF32, bits), expected)
})

test('bf16 is the upper half of a float32', () => {
  const bits = [0x0000, 0x8000, 0x3f80, 0xc040, 0x7f80, 0xff80, 0x0001]
  assert.deepEqual(convert(bf16ToF32, bits), [0, -0, 1, -3, Infinity, -Infinity, 2 ** -133])
  assert.ok(Number.isNaN(convert(bf16ToF32, [0x7fc0])[0]))
})
