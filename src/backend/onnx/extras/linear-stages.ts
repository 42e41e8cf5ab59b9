// What extras do to a linear before its base product and behind it, stage by stage in the order of adapter/primitive.ts.

import { invariant } from '../../../core/invariant.ts'
import type { LinearPart } from '../decoder-layout.ts'
import type { Value } from '../graph-builder.ts'
import type { GraphContext } from '../graph-context.ts'
import { bottleneckTiles } from './bottleneck.ts'
import { denseRowsTiles, denseTiles, sparseTiles } from './dense.ts'
import type { ExtraOp } from './extra.ts'
import { gatedLowRankTiles } from './gated-low-rank.ts'
import { kronTiles } from './kron.ts'
import { addToRows, multiplyRows, opsAt, replaceRows, tilesOf } from './op-graph.ts'
import { lateTiles, rotateTiles } from './rotate.ts'
import { routedLowRankTiles, routedVectorTiles } from './routed.ts'

/** x + A(x) where an adapter puts a bottleneck before the site. x [numTokens, in] */
export function beforeSite(context: GraphContext, site: string, x: Value): Value {
  let out = x
  for (const op of opsAt(context, site, 'input')) {
    invariant(op.form.kind === 'bottleneck', 'a bottleneck acts before a site')
    const tiles = bottleneckTiles(context, op, op.form, { x: tilesOf(context, op, out), f: null })
    out = addToRows(context, op, out, tiles, op.inWidth)
  }
  return out
}

/** x · R */
export function turned(context: GraphContext, site: string, x: Value): Value {
  let out = x
  for (const op of opsAt(context, site, 'rotate')) {
    invariant(op.form.kind === 'rotate', 'a rotation')
    out = replaceRows(context, op, out, rotateTiles(context, op, op.form, tilesOf(context, op, out)), op.inWidth)
  }
  return out
}

/** Whether an adapter does anything here but vectors and low rank. */
export function hasStages(context: GraphContext, part: LinearPart): boolean {
  return (
    hasOutputStages(context, part) ||
    (['input', 'rotate'] as const).some((stage) => opsAt(context, part.site, stage).length > 0)
  )
}

export function hasOutputStages(context: GraphContext, { site }: LinearPart): boolean {
  return (['delta', 'scale', 'late', 'output'] as const).some((stage) => opsAt(context, site, stage).length > 0)
}

/** z with every update, scale, rotation and module behind it. x [numTokens, in], z [numTokens, out] */
export function behindSite(context: GraphContext, site: string, x: Value, z: Value): Value {
  let out = z
  for (const op of opsAt(context, site, 'delta')) {
    out = addToRows(context, op, out, deltaTiles(context, op, tilesOf(context, op, x)), op.outWidth)
  }
  for (const op of opsAt(context, site, 'scale')) {
    invariant(op.form.kind === 'routed-vectors', 'mixed vectors')
    out = multiplyRows(context, op, out, routedVectorTiles(context, op, op.form, tilesOf(context, op, x)), op.outWidth)
  }
  for (const op of opsAt(context, site, 'late')) {
    invariant(op.form.kind === 'late', 'scale, rotation, shift')
    out = replaceRows(context, op, out, lateTiles(context, op, op.form, tilesOf(context, op, out)), op.outWidth)
  }
  for (const op of opsAt(context, site, 'output')) {
    invariant(op.form.kind === 'bottleneck', 'a bottleneck acts behind a site')
    const tiles = bottleneckTiles(context, op, op.form, { x: tilesOf(context, op, out), f: null })
    out = addToRows(context, op, out, tiles, op.outWidth)
  }
  return out
}

function deltaTiles(context: GraphContext, op: ExtraOp, x: Value): Value {
  const { form } = op
  switch (form.kind) {
    case 'kron':
      return kronTiles(context, op, form, x)
    case 'dense':
      return denseTiles(context, op, x)
    case 'dense-rows':
      return denseRowsTiles(context, op, x)
    case 'sparse':
      return sparseTiles(context, op, x)
    case 'bottleneck':
      return bottleneckTiles(context, op, form, { x, f: null })
    case 'gated-low-rank':
      return gatedLowRankTiles(context, op, x)
    case 'routed-low-rank':
      return routedLowRankTiles(context, op, form, x)
    default:
      invariant(false, `${form.kind} is no update of a linear`)
  }
}
