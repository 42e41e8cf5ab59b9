// An adapter's primitives at one site as ops of the graph.

import type { Bottleneck, Routed, VirtualTokens } from '../../../adapter/primitive.ts'
import type { Delta, SitePrimitives } from '../../../adapter/site-primitives.ts'
import type { SiteShape } from '../../../adapter/site-shapes.ts'
import type { DecoderSpec } from '../../../model/decoder-spec.ts'
import { bindBottleneck, gateTables, type Widths } from './bottleneck.ts'
import { bindCirculant, bindDense, bindSparse } from './dense.ts'
import { type BoundForm, type Extra, extraOf, type Stage } from './extra.ts'
import { bindGatedLowRank } from './gated-low-rank.ts'
import { bindKron } from './kron.ts'
import { bindLate, bindRotate } from './rotate.ts'
import { bindRouted } from './routed.ts'
import { bindSideAttention } from './side-attention.ts'
import { bindStreamEdit } from './stream-edit.ts'

/** Collects ops of one site; each next one of a stage acts behind the last. */
class SiteExtras {
  readonly extras: Extra[] = []
  readonly #site: string

  constructor(site: string) {
    this.#site = site
  }

  add(stage: Stage, widths: Widths, bound: BoundForm, scope: Extra['scope'] = null): void {
    const position = this.extras.filter(({ op }) => op.stage === stage).length
    this.extras.push(extraOf({ site: this.#site, stage, position, ...widths }, bound, scope))
  }
}

/** Ops at a linear, in the order they act. Copies what has to lie differently; call it when the adapter is loaded. */
export function linearExtras(site: string, shape: SiteShape, primitives: SitePrimitives): readonly Extra[] {
  const { rotate, pairRotate, vectors, deltas, gatedLowRanks, bottlenecks, routed } = primitives
  const all = new SiteExtras(site)
  const through = { inWidth: shape.numIn, outWidth: shape.numOut }
  const before = { inWidth: shape.numIn, outWidth: shape.numIn }
  const behind = { inWidth: shape.numOut, outWidth: shape.numOut }
  const addModules = (stage: Stage, input: Bottleneck['input'], widths: Widths) => {
    for (const each of bottlenecks) if (each.input === input) all.add(stage, widths, bindBottleneck(each, widths))
  }
  addModules('input', 'site-input', before)
  if (rotate !== null) all.add('rotate', before, bindRotate(rotate))
  for (const delta of deltas) all.add('delta', through, bindDelta(delta, shape))
  for (const gated of gatedLowRanks) all.add('delta', through, bindGatedLowRank(gated, through))
  addModules('delta', 'site-beside', through)
  for (const each of routed) all.add(isScale(each) ? 'scale' : 'delta', through, bindRouted(each, through))
  if (hasLateVectors(primitives)) {
    const scale = vectors.get('output-scale') ?? null
    const late = bindLate(shape.numOut, { scale, turn: pairRotate, shift: vectors.get('shift') ?? null })
    if (late !== null) all.add('late', behind, late)
  }
  addModules('output', 'site-output', behind)
  return all.extras
}

/**
 * Whether the output scale and shift come behind something that is no part of the folded form (folded-site.ts), and must
 * therefore be ops themselves.
 */
export function hasLateVectors({ deltas, gatedLowRanks, routed, pairRotate, bottlenecks }: SitePrimitives): boolean {
  const isBeside = bottlenecks.some(({ input }) => input === 'site-beside')
  return isBeside || pairRotate !== null || deltas.length + gatedLowRanks.length + routed.length > 0
}

/** Ops at the hooks of a layer. */
export function hookExtras(site: string, shape: SiteShape, primitives: SitePrimitives, spec: DecoderSpec): readonly Extra[] {
  const all = new SiteExtras(site)
  const stream = { inWidth: shape.numIn, outWidth: shape.numOut }
  for (const module of primitives.modules) {
    all.add('hook', stream, module.kind === 'routed' ? bindRouted(module, stream) : bindBottleneck(module, stream))
  }
  for (const edit of primitives.streamEdits) all.add('stream', stream, bindStreamEdit(edit, shape.numIn), edit.scope)
  const heads = { inWidth: shape.numOut, outWidth: shape.numOut }
  for (const side of primitives.sideAttentions) all.add('side', heads, bindSideAttention(side, spec))
  return all.extras
}

/** Ops that virtual tokens need in every layer. */
export function virtualExtras(virtualTokens: VirtualTokens | null, spec: DecoderSpec): readonly Extra[] {
  if (virtualTokens?.kind === 'soft-prompt') return virtualTokens.layerRows === null ? [] : layerRowExtras(spec)
  const widths = { inWidth: spec.hiddenSize, outWidth: 1 }
  return (virtualTokens?.gates ?? []).map(({ keys, values }, layer) => {
    const tables = new Map([...gateTables(keys, 'keys.'), ...gateTables(values, 'values.')])
    const place = { site: `layers.${layer}.attention`, stage: 'gates', position: 0, ...widths } as const
    return extraOf(place, { form: { kind: 'prefix-gates' }, tables })
  })
}

/** Rows a soft prompt adds to itself at the input of every layer. */
function layerRowExtras({ numLayers, hiddenSize }: DecoderSpec): readonly Extra[] {
  const form: BoundForm = { form: { kind: 'layer-rows' }, tables: new Map() }
  const widths = { inWidth: hiddenSize, outWidth: hiddenSize }
  return Array.from({ length: numLayers }, (_, layer) =>
    extraOf({ site: `layers.${layer}`, stage: 'virtual', position: 0, ...widths }, form),
  )
}

function bindDelta(delta: Delta, shape: SiteShape): BoundForm {
  switch (delta.kind) {
    case 'kron':
      return bindKron(delta)
    case 'circulant':
      return bindCirculant(delta, shape)
    case 'sparse':
      return bindSparse(delta, shape)
    case 'dense':
      return bindDense(delta, shape)
  }
}

function isScale({ experts }: Routed): boolean {
  return experts[0]?.kind === 'vector'
}
