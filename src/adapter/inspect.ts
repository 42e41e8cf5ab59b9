// What an adapter directory would be served as: `lorikeet inspect`.

import { adapterId } from '../core/ids.ts'
import type { PromptCoupling } from '../core/prompt-coupling.ts'
import type { ModelSource } from '../model/model-source.ts'
import { compileAdapter } from './compile.ts'
import { costOf, virtualCost } from './cost.ts'
import type { Primitive, Site } from './primitive.ts'
import { arraysOf } from './primitive-arrays.ts'

/** Sites of one name over the layers: `layers.*.q`. */
export interface SiteGroup {
  readonly name: string
  /** Layers that have it; [] outside the layers. */
  readonly layers: readonly number[]
  readonly primitives: readonly PrimitiveGroup[]
}

export interface PrimitiveGroup {
  /** `low-rank`, or `vector factor`. */
  readonly kind: string
  /** Smallest and largest over the sites; null where the primitive has no rank. */
  readonly ranks: readonly [least: number, most: number] | null
  readonly numBytes: number
  readonly flops: number
}

export interface AdapterReport {
  readonly kind: string
  readonly digest: string
  readonly numBytes: number
  /** Floating point operations a token, beside the base model's. */
  readonly flops: number
  /** Bytes read a step for all tokens of this adapter together, in float32. */
  readonly bytesRead: number
  readonly sites: readonly SiteGroup[]
  readonly virtualTokens: { readonly kind: string; readonly numTokens: number; readonly positions: string } | null
  readonly invocationTokenIds: readonly number[] | null
  /** Whether a prompt's keys and values can be the base model's. */
  readonly sharesBaseKv: 'always' | 'before activation' | 'never'
  readonly promptCoupling: PromptCoupling
  readonly warnings: readonly string[]
}

const ELEMENT_BYTES = Float32Array.BYTES_PER_ELEMENT

/** Throws what `compileAdapter` throws: the reason why the adapter would be refused. */
export function inspectAdapter(dir: string, model: ModelSource): AdapterReport {
  const { adapter, warnings } = compileAdapter(dir, model, adapterId(0), dir)
  const { kind, digest, numBytes, sites, virtualTokens, invocationTokenIds, kvDigest, promptCoupling } = adapter
  const costs = [...[...sites.values()].flat().map(costOf), virtualCost(virtualTokens)]
  return {
    kind,
    digest,
    numBytes,
    flops: costs.reduce((sum, { flops }) => sum + flops, 0),
    bytesRead: costs.reduce((sum, { elements }) => sum + elements, 0) * ELEMENT_BYTES,
    sites: groupSites(sites),
    virtualTokens:
      virtualTokens === null
        ? null
        : {
            kind: virtualTokens.kind,
            numTokens: virtualTokens.numTokens,
            positions: virtualTokens.kind === 'prefix' ? virtualTokens.positions : 'shift',
          },
    invocationTokenIds,
    sharesBaseKv: kvDigest === '' ? 'always' : invocationTokenIds === null ? 'never' : 'before activation',
    promptCoupling,
    warnings,
  }
}

function groupSites(sites: ReadonlyMap<Site, readonly Primitive[]>): readonly SiteGroup[] {
  const groups = new Map<string, { layers: number[]; primitives: Primitive[] }>()
  for (const [site, primitives] of sites) {
    const [scope, layer, role] = site.split('.')
    const name = role === undefined ? site : `${scope}.*.${role}`
    const group = groups.get(name) ?? { layers: [], primitives: [] }
    if (role !== undefined) group.layers.push(Number(layer))
    group.primitives.push(...primitives)
    groups.set(name, group)
  }
  return [...groups].map(([name, { layers, primitives }]) => ({ name, layers, primitives: groupPrimitives(primitives) }))
}

function groupPrimitives(primitives: readonly Primitive[]): readonly PrimitiveGroup[] {
  const kinds = [...new Set(primitives.map(labelOf))]
  return kinds.map((kind) => {
    const alike = primitives.filter((primitive) => labelOf(primitive) === kind)
    const ranks = alike.flatMap((primitive) => ('rank' in primitive ? [primitive.rank] : []))
    return {
      kind,
      ranks: ranks.length === 0 ? null : [Math.min(...ranks), Math.max(...ranks)],
      numBytes: alike.flatMap(arraysOf).reduce((sum, { byteLength }) => sum + byteLength, 0),
      flops: alike.reduce((sum, primitive) => sum + costOf(primitive).flops, 0),
    }
  })
}

function labelOf(primitive: Primitive): string {
  switch (primitive.kind) {
    case 'vector':
      return `vector ${primitive.slot}`
    case 'bottleneck':
      return `bottleneck ${primitive.input}`
    case 'routed':
      return `routed by ${primitive.gate.kind}`
    default:
      return primitive.kind
  }
}
