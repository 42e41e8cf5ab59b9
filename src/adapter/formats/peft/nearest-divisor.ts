/** The divisor of `width` nearest to `wanted`, the lower one of two that are as near: how PEFT moves a size that does not divide. */
export function nearestDivisor(width: number, wanted: number): number {
  if (wanted >= width) return width
  for (let distance = 0; ; distance++) {
    if (width % (wanted - distance) === 0) return wanted - distance
    if (width % (wanted + distance) === 0) return wanted + distance
  }
}
