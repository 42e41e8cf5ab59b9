import type { PromptScope, StreamEdit } from '../primitive.ts'
import { activate } from './activate.ts'
import { addTo, product } from './dot.ts'

/** h + rotationᵀ(act(source h + bias) - rotation h) (LoReFT; DiReFT without the second term; arXiv:2404.03592). */
export function edited(edit: StreamEdit, h: Float32Array): Float32Array {
  const { rank, source, sourceBias, rotation, subtractsProjection, activation } = edit
  const target = product(source, h, sourceBias).map((value) => activate(activation, value))
  const present = product(rotation, h)
  const out = h.slice()
  for (let r = 0; r < rank; r++) {
    const step = (target[r] as number) - (subtractsProjection ? (present[r] as number) : 0)
    addTo(out, rotation.subarray(r * h.length, (r + 1) * h.length), step)
  }
  return out
}

/** Whether the token at `index` of a prompt of `promptLength` is edited; later tokens have an index past its end. */
export function isInScope({ numFirst, numLast, isCappedAtHalf }: PromptScope, index: number, promptLength: number): boolean {
  const most = isCappedAtHalf === true ? Math.floor(promptLength / 2) : promptLength
  return (
    index >= 0 && index < promptLength && (index < Math.min(numFirst, most) || index >= promptLength - Math.min(numLast, most))
  )
}
