import type { ModelSource } from '../model/model-source.ts'
import type { Hook } from './primitive.ts'

/**
 * Shape of a site: a linear or head [numOut, numIn], an embedding [numOut rows, numIn], a norm [numOut]; a hook reads and adds rows of
 * the stream, the hook of attention has one row of keys [numIn] a token and mixes heads [numOut].
 */
export interface SiteShape {
  readonly kind: 'linear' | 'norm' | 'embedding' | 'head' | 'hook' | 'attention'
  readonly numOut: number
  readonly numIn: number
}

export type SiteShapes = ReadonlyMap<string, SiteShape>

const STREAM_HOOKS: readonly Hook[] = ['attnOut', 'mlpOut', 'blockOut']

/** Shapes of every site adapters may name. */
export function siteShapes({ modules, spec }: Pick<ModelSource, 'modules' | 'spec'>): SiteShapes {
  const shapes = new Map<string, SiteShape>()
  for (const { kind, inFeatures: numIn, parts, refusal } of modules.values()) {
    if (refusal !== null) continue
    for (const { site, rowStart, rowEnd } of parts) shapes.set(site, { kind, numOut: rowEnd - rowStart, numIn })
  }
  const { hiddenSize, numHeads, numKvHeads, headDim } = spec
  for (let layer = 0; layer < spec.numLayers; layer++) {
    for (const hook of STREAM_HOOKS)
      shapes.set(`layers.${layer}.${hook}`, { kind: 'hook', numOut: hiddenSize, numIn: hiddenSize })
    const attention = { kind: 'attention', numOut: numHeads * headDim, numIn: numKvHeads * headDim } as const
    shapes.set(`layers.${layer}.attention`, attention)
  }
  return shapes
}
