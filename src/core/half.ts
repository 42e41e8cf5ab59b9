// Bit conversions of the 16-bit float formats; Node 20 has no Float16Array.

const word = new Uint32Array(1)
const float = new Float32Array(word.buffer)

/** bfloat16 is the upper half of a float32. */
export function bf16ToF32(bits: Uint16Array, out: Float32Array): void {
  const words = new Uint32Array(out.buffer, out.byteOffset, out.length)
  for (let i = 0; i < bits.length; i++) words[i] = (bits[i] as number) << 16
}

/** IEEE 754 half precision, subnormals and infinities included. */
export function f16ToF32(bits: Uint16Array, out: Float32Array): void {
  const words = new Uint32Array(out.buffer, out.byteOffset, out.length)
  for (let i = 0; i < bits.length; i++) words[i] = f16Word(bits[i] as number)
}

function f16Word(half: number): number {
  const sign = (half & 0x8000) << 16
  const exponent = (half >>> 10) & 0x1f
  const mantissa = half & 0x3ff
  if (exponent === 0x1f) return (sign | 0x7f800000 | (mantissa << 13)) >>> 0
  if (exponent !== 0) return (sign | ((exponent + 112) << 23) | (mantissa << 13)) >>> 0
  float[0] = mantissa * 2 ** -24
  return (sign | (word[0] as number)) >>> 0
}
