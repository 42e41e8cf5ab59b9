// What a step needs of its graph. A feature that no token of the step uses is not in the graph at all: a node costs
// about two microseconds even on empty inputs, and a layer would have thirty of them.

import { createHash } from 'node:crypto'
import type { ExtraOp } from './extras/extra.ts'

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
  /** Ops of all other primitives, in the order of `sortOps`. */
  readonly extras: readonly ExtraOp[]
}

/** Ops of one stage of a site in the order they act. */
export function sortOps(ops: Iterable<ExtraOp>): readonly ExtraOp[] {
  return [...ops].sort((a, b) => a.position - b.position || (a.key < b.key ? -1 : 1))
}

export function variantName({ hasChunks, lowRank, hasVectors, hasSplitInputs, extras }: GraphVariant): string {
  const features = [
    hasChunks && 'chunks',
    lowRank !== 'none' && lowRank,
    hasVectors && 'vectors',
    hasSplitInputs && 'split-inputs',
    extras.length > 0 && digestOfOps(extras),
  ]
  return ['decoder', ...features.filter(Boolean)].join('-')
}

/** Sets of ops live as long as the graphs made for them, and every step asks for the name of one. */
const digests = new WeakMap<readonly ExtraOp[], string>()

function digestOfOps(ops: readonly ExtraOp[]): string {
  let digest = digests.get(ops)
  if (digest === undefined) {
    const hash = createHash('sha256')
    for (const { key } of ops) hash.update(`${key} `)
    digest = hash.digest('hex').slice(0, 16)
    digests.set(ops, digest)
  }
  return digest
}
