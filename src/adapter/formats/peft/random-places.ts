// Places of ΔW that a trainer drew from a seed: the first of a random permutation of all of them, as PyTorch's `randperm` makes it.

import { MersenneTwister } from './mersenne-twister.ts'
import type { PeftContext } from './peft-context.ts'

/** PyTorch permutes larger ranges by another algorithm, which needs the whole permutation to know its start. */
const MAXIMUM_PLACES = 214_748_363

/** The first `count` values of torch.randperm(total) with this seed. */
export function firstOfPermutation(seed: number, total: number, count: number): Float64Array {
  const random = new MersenneTwister(seed)
  // Only the places that a swap has touched are kept.
  const swapped = new Map<number, number>()
  const out = new Float64Array(count)
  for (let i = 0; i < count; i++) {
    const other = i + (i < total - 1 ? random.nextUint32() % (total - i) : 0)
    out[i] = swapped.get(other) ?? other
    swapped.set(other, swapped.get(i) ?? i)
  }
  return out
}

/** Positions (row-major) of `count` trained coefficients of a matrix [rows, columns]. */
export function drawPlaces({ refuse }: PeftContext, seed: number, rows: number, columns: number, count: number): Float64Array {
  const total = rows * columns
  if (total > MAXIMUM_PLACES)
    throw refuse('random_loc_seed', `positions in a weight of ${total} elements cannot be drawn again here`)
  return firstOfPermutation(seed, total, count)
}

export function readPlaceSeed({ config, refuse }: PeftContext): number {
  const seed = config.number('random_loc_seed')
  if (!Number.isSafeInteger(seed)) throw refuse('random_loc_seed', `${seed} is not an integer`)
  return seed
}
