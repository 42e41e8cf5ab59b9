// Sums and products of vectors of one length, in fresh arrays.

export function plus(a: Float32Array, b: Float32Array): Float32Array {
  return a.map((value, i) => value + (b[i] as number))
}

export function minus(a: Float32Array, b: Float32Array): Float32Array {
  return a.map((value, i) => value - (b[i] as number))
}

export function times(a: Float32Array, b: Float32Array): Float32Array {
  return a.map((value, i) => value * (b[i] as number))
}
