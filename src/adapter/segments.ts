// Runs of consecutive tokens on one adapter slot, the unit of the multi-adapter kernels (Punica, arXiv:2310.18547: SGMV).
//
//   slotOfToken   -1 -1  2  2  2  0          segments of slots: {2, 2..5}, {0, 5..6}
//                  0  1  2  3  4  5          base rows are in no segment and cost nothing

import { type AdapterSlot, adapterSlot, NO_ADAPTER_SLOT } from '../core/ids.ts'

/** Token rows [start, end) that run on `slot`. */
export interface Segment {
  readonly slot: AdapterSlot
  readonly start: number
  readonly end: number
}

/** Segments of the first `numTokens` tokens, in row order. A slot appears once a run, so more than once if its rows are apart. */
export function findSegments(adapterSlotOfToken: Int32Array, numTokens: number): Segment[] {
  const segments: Segment[] = []
  let start = 0
  while (start < numTokens) {
    const slot = adapterSlotOfToken[start] as number
    let end = start + 1
    while (end < numTokens && adapterSlotOfToken[end] === slot) end++
    if (slot !== NO_ADAPTER_SLOT) segments.push({ slot: adapterSlot(slot), start, end })
    start = end
  }
  return segments
}
