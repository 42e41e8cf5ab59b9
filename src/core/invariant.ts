import { LorikeetError } from '../errors.ts'

/** States what must hold whatever a client sends; a failure is a defect of this program. */
export function invariant(condition: unknown, message: string): asserts condition {
  if (!condition) throw new LorikeetError('INTERNAL', { detail: `invariant: ${message}` })
}

/** Reads `array[index]` where the index is in range by construction. */
export function at<T>(array: ArrayLike<T>, index: number): T {
  const value = array[index]
  invariant(value !== undefined, `index ${index} of ${array.length}`)
  return value
}
