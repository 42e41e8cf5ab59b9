// What every backend asks of an adapter before it takes it: that each primitive means something at its site and fits the model.

import { LorikeetError } from '../errors.ts'
import type { DecoderSpec } from '../model/decoder-spec.ts'
import { linearMisfit } from './linear-fit.ts'
import { moduleMisfit, positionMisfit } from './module-fit.ts'
import type { CompiledAdapter, Primitive, SideAttention } from './primitive.ts'
import { type SitePrimitives, sortSite } from './site-primitives.ts'
import type { SiteShape, SiteShapes } from './site-shapes.ts'
import { checkVirtualTokens } from './virtual-tokens.ts'

/** Primitives by site, checked and sorted. Throws ADAPTER_REFUSED naming the site (or the virtual tokens) that does not fit. */
export function fitAdapter(
  adapter: CompiledAdapter,
  shapes: SiteShapes,
  spec: DecoderSpec,
): ReadonlyMap<string, SitePrimitives> {
  checkVirtualTokens(adapter, spec)
  const sorted = new Map<string, SitePrimitives>()
  for (const [site, primitives] of adapter.sites) {
    const shape = shapes.get(site)
    const reason = shape === undefined ? 'the base model has no such site' : siteMisfit(site, shape, primitives)
    if (reason !== null) throw new LorikeetError('ADAPTER_REFUSED', { name: adapter.name, field: site, reason })
    sorted.set(site, sortSite(primitives))
  }
  return sorted
}

function siteMisfit(site: string, shape: SiteShape, primitives: readonly Primitive[]): string | null {
  const roles = new Set<string>()
  for (const primitive of primitives) {
    const reason = placeMisfit(site, shape, primitive) ?? shapeMisfit(shape, primitive)
    if (reason !== null) return reason
    const role = roleOf(primitive)
    if (role === null) continue
    if (roles.has(role)) return `two ${role}`
    roles.add(role)
  }
  return null
}

/** What a site has one of: nobody defines how two would combine. */
function roleOf(primitive: Primitive): string | null {
  switch (primitive.kind) {
    case 'vector':
      return `vectors fill the slot ${primitive.slot}`
    case 'replace':
      return 'weights replace one'
    case 'rows':
      return 'sets of rows'
    case 'rotate':
      return 'rotations of the input'
    case 'pair-rotate':
      return 'rotations of the output'
    case 'coupling':
      return 'couplings'
    case 'position-rows':
      return 'sets of rows of positions'
    default:
      return null
  }
}

/** Kinds of sites each primitive acts on. A norm takes some vectors, which `linearMisfit` says. */
const PLACES: Readonly<Record<Primitive['kind'], readonly SiteShape['kind'][]>> = {
  'low-rank': ['linear', 'head', 'embedding'],
  vector: ['linear', 'head', 'embedding', 'norm'],
  replace: ['linear', 'head', 'embedding', 'norm'],
  rows: ['head', 'embedding'],
  kron: ['linear', 'head'],
  circulant: ['linear', 'head'],
  sparse: ['linear', 'head', 'embedding'],
  dense: ['linear', 'head', 'embedding'],
  rotate: ['linear', 'head', 'embedding'],
  'pair-rotate': ['linear', 'head', 'embedding'],
  bottleneck: ['linear', 'hook', 'embedding'],
  'gated-low-rank': ['linear'],
  routed: ['linear', 'hook'],
  'stream-edit': ['hook'],
  'side-attention': ['attention'],
  coupling: ['embedding'],
  'position-rows': ['embedding'],
}

function placeMisfit(site: string, { kind }: SiteShape, primitive: Primitive): string | null {
  const isStream = primitive.kind === 'stream-edit'
  const isEmbedOnly = primitive.kind === 'coupling' || primitive.kind === 'position-rows'
  const isRight =
    PLACES[primitive.kind].includes(kind) &&
    (kind !== 'hook' || site.endsWith('.blockOut') === isStream) &&
    (!isEmbedOnly || site === 'embed')
  return isRight ? null : `${primitive.kind} means nothing there`
}

function shapeMisfit(shape: SiteShape, primitive: Primitive): string | null {
  switch (primitive.kind) {
    case 'bottleneck':
    case 'gated-low-rank':
    case 'routed':
    case 'stream-edit':
      return moduleMisfit(shape, primitive)
    case 'coupling':
    case 'position-rows':
      return positionMisfit(shape, primitive)
    case 'side-attention':
      return sideMisfit(shape, primitive)
    default:
      return linearMisfit(shape, primitive)
  }
}

function sideMisfit({ numIn }: SiteShape, { numTokens, keys, values }: SideAttention): string | null {
  const isRight = numTokens > 0 && keys.length === numTokens * numIn && values.length === numTokens * numIn
  return isRight ? null : `keys and values must be ${numTokens} rows of ${numIn}`
}
