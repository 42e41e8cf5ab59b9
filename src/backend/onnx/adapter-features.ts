// What an adapter needs of the graph and of memory beside its low-rank pages.

import type { VectorSlot, VirtualTokens } from '../../adapter/primitive.ts'
import { arraysOf } from '../../adapter/primitive-arrays.ts'
import type { SitePrimitives } from '../../adapter/site-primitives.ts'
import type { SiteShape, SiteShapes } from '../../adapter/site-shapes.ts'
import { invariant } from '../../core/invariant.ts'
import type { DecoderSpec } from '../../model/decoder-spec.ts'
import { hasLateVectors, hookExtras, linearExtras, virtualExtras } from './extras/bind-extras.ts'
import { type Extra, type ExtraOp, extraBytes } from './extras/extra.ts'
import { partKind } from './graph-linear.ts'

/** What of an adapter the graph must have nodes for. */
export interface AdapterFeatures {
  readonly hasLowRank: boolean
  readonly hasVectors: boolean
  readonly hasSplitInputs: boolean
  readonly ops: readonly ExtraOp[]
  /** Of the tables of its ops. */
  readonly extraBytes: number
}

const SHARED_INPUT_KINDS: ReadonlySet<string> = new Set(['q', 'k', 'v', 'gate', 'up'])

export function adapterFeatures(
  shapes: SiteShapes,
  spec: DecoderSpec,
  sites: ReadonlyMap<string, SitePrimitives>,
  virtualTokens: VirtualTokens | null,
): AdapterFeatures {
  const ops: ExtraOp[] = virtualExtras(virtualTokens, spec).map(({ op }) => op)
  let numBytes = 0
  let hasLowRank = false
  let hasVectors = false
  let hasSplitInputs = false
  for (const [site, primitives] of sites) {
    const kind = shapes.get(site)?.kind
    const isLinear = kind === 'linear'
    const vectors = foldableVectors(primitives)
    const hasBias = primitives.lowRanks.some(({ biasB }) => biasB !== null)
    hasLowRank ||= isLinear && rankOf(primitives, 1) > 0
    hasVectors ||= kind === 'norm' || (isLinear && (vectors.size > 0 || hasBias))
    hasSplitInputs ||= isLinear && vectors.has('input-scale') && SHARED_INPUT_KINDS.has(partKind(site))
    for (const extra of bindSite(site, shapes, primitives, spec)) {
      ops.push(extra.op)
      numBytes += extraBytes(extra)
    }
  }
  return { hasLowRank, hasVectors, hasSplitInputs, ops, extraBytes: numBytes }
}

/** Ops of one site; none where it is computed outside the graph. */
export function bindSite(site: string, shapes: SiteShapes, primitives: SitePrimitives, spec: DecoderSpec): readonly Extra[] {
  const shape = shapes.get(site)
  invariant(shape !== undefined, `the model has a site ${site}`)
  if (shape.kind === 'linear') return linearExtras(site, shape, primitives)
  return shape.kind === 'hook' || shape.kind === 'attention' ? hookExtras(site, shape, primitives, spec) : []
}

/** Vectors that folded-site.ts takes in: all, unless something comes between them and the updates. */
export function foldableVectors(primitives: SitePrimitives): ReadonlyMap<VectorSlot, Float32Array> {
  const { vectors } = primitives
  if (!hasLateVectors(primitives)) return vectors
  return new Map([...vectors].filter(([slot]) => slot !== 'output-scale' && slot !== 'shift'))
}

/** Rank rows the site takes in the arena; a replaced weight is a full-rank update. */
export function rankOf(primitives: SitePrimitives | undefined, numIn: number): number {
  if (primitives === undefined) return 0
  return primitives.lowRanks.reduce((sum, { rank }) => sum + rank, primitives.replace === null ? 0 : numIn)
}

/** Bytes that are neither pages nor tables of ops. */
export function ownBytes(kind: SiteShape['kind'] | undefined, primitives: SitePrimitives): number {
  const isElsewhere = kind === 'hook' || kind === 'attention'
  const arrays = isElsewhere ? [] : kind === 'linear' ? [...foldableVectors(primitives).values()] : arraysOf(allOf(primitives))
  return arrays.reduce((sum, array) => sum + array.byteLength, 0)
}

/** Each primitive once: `modules` lists bottlenecks and mixtures again. */
function allOf({ modules, vectors, ...others }: SitePrimitives): unknown {
  return [others, [...vectors.values()], modules.length]
}
