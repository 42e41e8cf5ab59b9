// What a step needs of its graph. A feature that no token of the step uses is not in the graph at all: a node costs
// about two microseconds even on empty inputs, and a layer would have thirty of them.

/** direct: the arena itself, a window of tiles that lie side by side. gathered: pages copied into tiles. */
export type LowRankSource = 'none' | 'direct' | 'gathered'

export interface GraphVariant {
  /** Some sequence computes more than one token; false = decode only. */
  readonly hasChunks: boolean
  /** Low-rank updates at linears, and how their weights reach the product (tile-inputs.ts chooses). */
  readonly lowRank: LowRankSource
  /** Per-adapter factors and shifts of linears and norms, and input scales of `o` and `down`. */
  readonly hasVectors: boolean
  /** Input scales of linears that share their input (q, k, v; gate, up): each is multiplied on its own. */
  readonly hasSplitInputs: boolean
}

export function variantName({ hasChunks, lowRank, hasVectors, hasSplitInputs }: GraphVariant): string {
  const features = [
    hasChunks && 'chunks',
    lowRank !== 'none' && lowRank,
    hasVectors && 'vectors',
    hasSplitInputs && 'split-inputs',
  ]
  return ['decoder', ...features.filter(Boolean)].join('-')
}
