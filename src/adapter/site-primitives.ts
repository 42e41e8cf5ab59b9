// The primitives of one site, sorted by the slot of primitive.ts they fill.

import type {
  Bottleneck,
  Circulant,
  Coupling,
  Dense,
  GatedLowRank,
  Kron,
  LowRank,
  PairRotate,
  PositionRows,
  Primitive,
  Replace,
  Rotate,
  Routed,
  Rows,
  SideAttention,
  Sparse,
  StreamEdit,
  VectorSlot,
} from './primitive.ts'

/** A linear update that is no low-rank one. */
export type Delta = Kron | Circulant | Sparse | Dense

export interface SitePrimitives {
  readonly replace: Replace | null
  readonly rows: Rows | null
  readonly rotate: Rotate | null
  readonly pairRotate: PairRotate | null
  readonly vectors: ReadonlyMap<VectorSlot, Float32Array>
  readonly lowRanks: readonly LowRank[]
  readonly gatedLowRanks: readonly GatedLowRank[]
  readonly deltas: readonly Delta[]
  readonly bottlenecks: readonly Bottleneck[]
  readonly routed: readonly Routed[]
  /** Bottlenecks and mixtures together, in the order listed: at a hook one reads what the last one left. */
  readonly modules: readonly (Bottleneck | Routed)[]
  readonly streamEdits: readonly StreamEdit[]
  readonly sideAttentions: readonly SideAttention[]
  readonly coupling: Coupling | null
  readonly positionRows: PositionRows | null
}

export const NO_PRIMITIVES: SitePrimitives = sortSite([])

export function sortSite(primitives: readonly Primitive[]): SitePrimitives {
  const all = <K extends Primitive['kind']>(...kinds: readonly K[]) =>
    primitives.filter((each): each is Extract<Primitive, { kind: K }> => (kinds as readonly string[]).includes(each.kind))
  return {
    replace: all('replace')[0] ?? null,
    rows: all('rows')[0] ?? null,
    rotate: all('rotate')[0] ?? null,
    pairRotate: all('pair-rotate')[0] ?? null,
    vectors: new Map(all('vector').map(({ slot, values }) => [slot, values])),
    lowRanks: all('low-rank'),
    gatedLowRanks: all('gated-low-rank'),
    deltas: all('kron', 'circulant', 'sparse', 'dense'),
    bottlenecks: all('bottleneck'),
    routed: all('routed'),
    modules: all('bottleneck', 'routed'),
    streamEdits: all('stream-edit'),
    sideAttentions: all('side-attention'),
    coupling: all('coupling')[0] ?? null,
    positionRows: all('position-rows')[0] ?? null,
  }
}
