// What a step needs of its graph. A feature that no token of the step uses is not in the graph at all: a node costs
// about two microseconds even on empty inputs, and a layer would have thirty of them.

/**
 * aligned: the arena itself, where token i belongs to the i-th tile of a window. direct: the same with tiles of several or no
 * rows. gathered: pages copied into tiles.
 */
export type LowRankSource = 'none' | 'aligned' | 'direct' | 'gathered'

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
