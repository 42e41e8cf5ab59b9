import type { Coupling, HalfMlp } from '../primitive.ts'
import { activate } from './activate.ts'
import { addTo, product } from './dot.ts'

/** y1 = x1 + F(x2), y2 = x2 + G(y1) on the halves of a row (NICE, arXiv:1410.8516; MAD-X, arXiv:2005.00052). In place. */
export function couple(row: Float32Array, { f, g }: Coupling): void {
  const first = row.subarray(0, row.length / 2)
  const second = row.subarray(row.length / 2)
  addTo(first, halfMlp(f, second))
  addTo(second, halfMlp(g, first))
}

/** up · act(down x + downBias) + upBias */
function halfMlp({ down, downBias, up, upBias, activation }: HalfMlp, x: Float32Array): Float64Array {
  const inner = Float32Array.from(product(down, x, downBias), (value) => activate(activation, value))
  return product(up, inner, upBias)
}
