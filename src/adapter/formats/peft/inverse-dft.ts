// The inverse discrete Fourier transform of any length, in float64: powers of two directly, other lengths by Bluestein's
// convolution (IEEE Trans. Audio Electroacoustics 18, 1970).

export interface ComplexArray {
  readonly re: Float64Array
  readonly im: Float64Array
}

/** In place, without the division by the length. */
export type InverseTransform = (data: ComplexArray) => void

export function inverseTransform(length: number): InverseTransform {
  if (Number.isInteger(Math.log2(length))) {
    const roots = unitRoots(length)
    return (data) => radix2(data, roots, 1)
  }
  return bluestein(length)
}

function bluestein(length: number): InverseTransform {
  const padded = 2 ** Math.ceil(Math.log2(2 * length - 1))
  const roots = unitRoots(padded)
  // chirp[k] = exp(iπk²/n); k² is taken mod 2n, which keeps the angle small.
  const chirp = complex(length)
  for (let k = 0; k < length; k++) {
    const angle = (Math.PI * ((k * k) % (2 * length))) / length
    chirp.re[k] = Math.cos(angle)
    chirp.im[k] = Math.sin(angle)
  }
  const filter = complex(padded)
  for (let k = 0; k < length; k++) {
    for (const at of k === 0 ? [0] : [k, padded - k]) {
      filter.re[at] = chirp.re[k] as number
      filter.im[at] = -(chirp.im[k] as number)
    }
  }
  radix2(filter, roots, -1)
  const work = complex(padded)
  return (data) => {
    work.re.fill(0)
    work.im.fill(0)
    multiplyInto(work, data, chirp, length)
    radix2(work, roots, -1)
    multiplyInto(work, work, filter, padded)
    radix2(work, roots, 1)
    multiplyInto(data, work, chirp, length)
    for (let k = 0; k < length; k++) {
      data.re[k] = (data.re[k] as number) / padded
      data.im[k] = (data.im[k] as number) / padded
    }
  }
}

function complex(length: number): ComplexArray {
  return { re: new Float64Array(length), im: new Float64Array(length) }
}

/** exp(2πik/n) for k below n/2. */
function unitRoots(length: number): ComplexArray {
  const roots = complex(Math.max(1, length / 2))
  for (let k = 0; k < roots.re.length; k++) {
    roots.re[k] = Math.cos((2 * Math.PI * k) / length)
    roots.im[k] = Math.sin((2 * Math.PI * k) / length)
  }
  return roots
}

function multiplyInto(out: ComplexArray, a: ComplexArray, b: ComplexArray, length: number): void {
  for (let k = 0; k < length; k++) {
    const ar = a.re[k] as number
    const ai = a.im[k] as number
    const br = b.re[k] as number
    const bi = b.im[k] as number
    out.re[k] = ar * br - ai * bi
    out.im[k] = ar * bi + ai * br
  }
}

/** Cooley and Tukey 1965; `sign` 1 is the inverse transform, -1 the forward one. */
function radix2(data: ComplexArray, roots: ComplexArray, sign: 1 | -1): void {
  const { length } = data.re
  reorder(data)
  for (let size = 2; size <= length; size *= 2) {
    const half = size / 2
    const step = length / size
    for (let start = 0; start < length; start += size) {
      for (let k = 0; k < half; k++)
        butterfly(data, start + k, half, roots.re[k * step] as number, sign * (roots.im[k * step] as number))
    }
  }
}

function butterfly({ re, im }: ComplexArray, low: number, half: number, cosine: number, sine: number): void {
  const high = low + half
  const turnedRe = (re[high] as number) * cosine - (im[high] as number) * sine
  const turnedIm = (re[high] as number) * sine + (im[high] as number) * cosine
  re[high] = (re[low] as number) - turnedRe
  im[high] = (im[low] as number) - turnedIm
  re[low] = (re[low] as number) + turnedRe
  im[low] = (im[low] as number) + turnedIm
}

/** To bit-reversed order. */
function reorder({ re, im }: ComplexArray): void {
  const { length } = re
  for (let i = 1, j = 0; i < length; i++) {
    let bit = length >> 1
    for (; (j & bit) !== 0; bit >>= 1) j ^= bit
    j ^= bit
    if (i >= j) continue
    const [keptRe, keptIm] = [re[i] as number, im[i] as number]
    re[i] = re[j] as number
    im[i] = im[j] as number
    re[j] = keptRe
    im[j] = keptIm
  }
}
