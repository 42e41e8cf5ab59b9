// Which linears share an input and are therefore one matrix product.

import { at, invariant } from '../../core/invariant.ts'
import type { DecoderSpec, LinearRole } from '../../model/decoder-spec.ts'
import type { ModelSource } from '../../model/model-source.ts'

export interface LinearPart {
  /** Canonical name: `layers.0.q`, `lmHead`, `layers.0.experts.3.gate`. */
  readonly site: string
  readonly numOut: number
}

/** Linears over one input, their outputs side by side. */
export interface LinearGroup {
  readonly name: string
  readonly numIn: number
  readonly numOut: number
  readonly parts: readonly LinearPart[]
  /** One matrix a part: whoever reads such a group wants its parts apart, and cutting wide rows costs more than another product. */
  readonly isApart: boolean
}

export interface ExpertGroups {
  readonly gateUp: LinearGroup
  readonly down: LinearGroup
}

export interface LayerGroups {
  readonly qkv: LinearGroup
  readonly o: LinearGroup
  /** Null in a layer of experts. */
  readonly mlpIn: LinearGroup | null
  readonly down: LinearGroup | null
  readonly router: LinearGroup | null
  readonly experts: readonly ExpertGroups[]
}

export interface DecoderLayout {
  readonly layers: readonly LayerGroups[]
  readonly lmHead: LinearGroup
}

export function layoutOf(spec: DecoderSpec): DecoderLayout {
  return {
    layers: spec.layers.map((_, index) => layerGroups(spec, index)),
    lmHead: group('lmHead', spec.hiddenSize, [{ site: 'lmHead', numOut: spec.vocabSize }]),
  }
}

/** Groups adapters can act on inside the graph. */
export function adaptedGroups(layout: DecoderLayout): readonly LinearGroup[] {
  return layout.layers.flatMap(({ qkv, o, mlpIn, down }) => [qkv, o, mlpIn, down].filter((each) => each !== null))
}

/** The matrices a group is packed and multiplied as, in the order of its parts. */
export function matricesOf(whole: LinearGroup): readonly LinearGroup[] {
  return whole.isApart ? whole.parts.map((part) => group(part.site, whole.numIn, [part])) : [whole]
}

/** Every linear of the model. */
export function allGroups(layout: DecoderLayout): readonly LinearGroup[] {
  const experts = layout.layers.flatMap(({ router, experts }) => [
    ...(router === null ? [] : [router]),
    ...experts.flatMap(({ gateUp, down }) => [gateUp, down]),
  ])
  return [...adaptedGroups(layout), ...experts, layout.lmHead]
}

/** The group's base bias with zeros where a part has none; null where no part has one. [numOut] */
export function groupBias(model: ModelSource, { parts, numOut }: LinearGroup): Float32Array | null {
  if (!parts.some(({ site }) => model.parameters.has(`${site}.bias`))) return null
  const bias = new Float32Array(numOut)
  let offset = 0
  for (const { site, numOut: width } of parts) {
    if (model.parameters.has(`${site}.bias`)) bias.set(model.read(`${site}.bias`), offset)
    offset += width
  }
  return bias
}

/** Parameter a part's weight is read from: a tied head is the embedding. */
export function parameterOf(spec: DecoderSpec, { site }: LinearPart): string {
  return site === 'lmHead' && spec.tiedHead ? 'embed' : site
}

function layerGroups(spec: DecoderSpec, index: number): LayerGroups {
  const { hiddenSize, numHeads, numKvHeads, headDim } = spec
  const { mlp } = at(spec.layers, index)
  const site = (role: LinearRole, numOut: number): LinearPart => ({ site: `layers.${index}.${role}`, numOut })
  const kvWidth = numKvHeads * headDim
  const attention = {
    qkv: group(`layers.${index}.qkv`, hiddenSize, [site('q', numHeads * headDim), site('k', kvWidth), site('v', kvWidth)]),
    o: group(`layers.${index}.o`, numHeads * headDim, [site('o', hiddenSize)]),
  }
  if (mlp.kind === 'experts') {
    return { ...attention, mlpIn: null, down: null, ...expertGroups(spec, index) }
  }
  const inner = mlp.intermediateSize
  const inParts = mlp.kind === 'gated' ? [site('gate', inner), site('up', inner)] : [site('up', inner)]
  return {
    ...attention,
    mlpIn: group(`layers.${index}.mlpIn`, hiddenSize, inParts, inParts.length > 1),
    down: group(`layers.${index}.down`, inner, [site('down', hiddenSize)]),
    router: null,
    experts: [],
  }
}

function expertGroups(spec: DecoderSpec, index: number): Pick<LayerGroups, 'router' | 'experts'> {
  const { mlp } = at(spec.layers, index)
  invariant(mlp.kind === 'experts', 'a layer of experts')
  const { numExperts, intermediateSize: inner } = mlp
  const { hiddenSize } = spec
  const router = `layers.${index}.router`
  return {
    router: group(router, hiddenSize, [{ site: router, numOut: numExperts }]),
    experts: Array.from({ length: numExperts }, (_, expert) => {
      const path = `layers.${index}.experts.${expert}`
      const inParts = [
        { site: `${path}.gate`, numOut: inner },
        { site: `${path}.up`, numOut: inner },
      ]
      return {
        gateUp: group(`${path}.gateUp`, hiddenSize, inParts, true),
        down: group(`${path}.down`, inner, [{ site: `${path}.down`, numOut: hiddenSize }]),
      }
    }),
  }
}

function group(name: string, numIn: number, parts: readonly LinearPart[], isApart = false): LinearGroup {
  return { name, numIn, numOut: parts.reduce((sum, { numOut }) => sum + numOut, 0), parts, isApart }
}
