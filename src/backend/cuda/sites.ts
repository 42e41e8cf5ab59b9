// Positions of sites in the tables of an adapter's record, and which linears share an input and are one product.

import { invariant } from '../../core/invariant.ts'
import type { DecoderSpec, LinearRole, NormRole } from '../../model/decoder-spec.ts'

export const LINEAR_ROLES = ['q', 'k', 'v', 'o', 'gate', 'up', 'down'] as const satisfies readonly LinearRole[]
export const NORM_ROLES = ['preAttn', 'postAttn', 'preMlp', 'postMlp', 'qNorm', 'kNorm'] as const satisfies readonly NormRole[]

/** Linears over one input, outputs side by side: one bit each in masks of what a step's adapters change. */
export const GROUPS = ['qkv', 'o', 'mlpIn', 'down', 'head'] as const
export type GroupName = (typeof GROUPS)[number]

export const ALL_GROUPS = (1 << GROUPS.length) - 1

export function groupBit(group: GroupName): number {
  return 1 << GROUPS.indexOf(group)
}

const GROUP_OF_ROLE: Readonly<Record<LinearRole, GroupName>> = {
  q: 'qkv',
  k: 'qkv',
  v: 'qkv',
  o: 'o',
  gate: 'mlpIn',
  up: 'mlpIn',
  down: 'down',
}

/** Kernels read 16 bytes at a time: on the device every linear has widths of whole eights, with zeros beyond its own. */
export function paddedWidth(width: number): number {
  return Math.ceil(width / 8) * 8
}

/** Group of a linear site: `layers.3.q` is in `qkv`. */
export function groupOfSite(site: string): GroupName {
  if (site === 'lmHead') return 'head'
  return GROUP_OF_ROLE[site.slice(site.lastIndexOf('.') + 1) as LinearRole]
}

export function linearIndex(layer: number, role: LinearRole): number {
  return layer * LINEAR_ROLES.length + LINEAR_ROLES.indexOf(role)
}

export function headIndex(spec: DecoderSpec): number {
  return spec.numLayers * LINEAR_ROLES.length
}

export function numLinearSites(spec: DecoderSpec): number {
  return headIndex(spec) + 1
}

export function normIndex(layer: number, role: NormRole): number {
  return layer * NORM_ROLES.length + NORM_ROLES.indexOf(role)
}

export function finalNormIndex(spec: DecoderSpec): number {
  return spec.numLayers * NORM_ROLES.length
}

export function numNormSites(spec: DecoderSpec): number {
  return finalNormIndex(spec) + 1
}

/** Index of a linear or norm site by its canonical name. */
export function siteIndex(spec: DecoderSpec, site: string): number {
  if (site === 'lmHead') return headIndex(spec)
  if (site === 'finalNorm') return finalNormIndex(spec)
  const [, layer, role = ''] = site.split('.')
  const linear = (LINEAR_ROLES as readonly string[]).indexOf(role)
  if (linear !== -1) return Number(layer) * LINEAR_ROLES.length + linear
  const norm = (NORM_ROLES as readonly string[]).indexOf(role)
  invariant(norm !== -1, `${site} is a linear or a norm`)
  return Number(layer) * NORM_ROLES.length + norm
}
