// Everything of a linear or a head behind its base product, for the rows of one call (primitive.ts gives the order).

import type { Routed } from '../primitive.ts'
import type { Delta, SitePrimitives } from '../site-primitives.ts'
import { bottleneck } from './bottleneck.ts'
import { addCirculant } from './circulant.ts'
import { addDense } from './dense.ts'
import { addTo, multiplyBy } from './dot.ts'
import { expertWeights } from './expert-weights.ts'
import { addKron } from './kron.ts'
import { addGatedLowRank, addLowRank } from './low-rank.ts'
import { pairRotate } from './pair-rotate.ts'
import { pooledGate } from './pooled-gate.ts'
import { addSparse } from './sparse.ts'

/** Rewrites `zs` [numOut] in place; `xs` [numIn] are the same rows as they entered. `baseBias` is null where z has it already. */
export function applyOutputSlots(
  site: SitePrimitives,
  baseBias: Float32Array | null,
  zs: readonly Float32Array[],
  xs: readonly Float32Array[],
): void {
  const { vectors, pairRotate: turn, bottlenecks } = site
  const bias = vectors.get('bias') ?? baseBias
  for (const z of zs) {
    multiplyIn(z, vectors.get('factor'))
    if (bias !== null) addTo(z, bias)
  }
  addUpdates(site, zs, xs)
  for (const [row, z] of zs.entries()) {
    multiplyIn(z, vectors.get('output-scale'))
    for (const routed of site.routed) if (isScale(routed)) multiplyBy(z, mixedVectors(routed, xs[row] as Float32Array))
    if (turn !== null) pairRotate(z, turn)
    const shift = vectors.get('shift')
    if (shift !== undefined) addTo(z, shift)
  }
  for (const adapter of bottlenecks) if (adapter.input === 'site-output') addRows(zs, bottleneck(adapter, zs))
}

/** z += Δ x */
function addDelta(z: Float32Array, delta: Delta, x: Float32Array): void {
  if (delta.kind === 'kron') addKron(z, delta, x)
  else if (delta.kind === 'circulant') addCirculant(z, delta, x)
  else if (delta.kind === 'sparse') addSparse(z, delta, x)
  else addDense(z, delta, x)
}

export function addRows(targets: readonly Float32Array[], rows: readonly Float32Array[]): void {
  for (const [i, target] of targets.entries()) addTo(target, rows[i] as Float32Array)
}

/** z += Σ δ(x) */
function addUpdates(site: SitePrimitives, zs: readonly Float32Array[], xs: readonly Float32Array[]): void {
  const gates = site.gatedLowRanks.map(({ gate }) => pooledGate(gate, xs))
  for (const [row, z] of zs.entries()) {
    const x = xs[row] as Float32Array
    for (const lowRank of site.lowRanks) addLowRank(z, lowRank, x)
    for (const delta of site.deltas) addDelta(z, delta, x)
    for (const [i, gated] of site.gatedLowRanks.entries()) addGatedLowRank(z, gated, x, gates[i] as number)
    for (const routed of site.routed) if (!isScale(routed)) addMixedLowRanks(z, routed, x)
  }
  for (const adapter of site.bottlenecks) if (adapter.input === 'site-beside') addRows(zs, bottleneck(adapter, xs))
}

function isScale({ experts }: Routed): boolean {
  return experts[0]?.kind === 'vector'
}

/** z += Σ p_e B_e A_e x (MoLoRA, arXiv:2309.05444). */
function addMixedLowRanks(z: Float32Array, { experts, gate }: Routed, x: Float32Array): void {
  if (gate.kind === 'attention') return
  const weights = expertWeights(gate, x)
  for (const [i, expert] of experts.entries()) {
    const delta = new Float32Array(z.length)
    if (expert.kind === 'low-rank' && weights[i] !== 0) addLowRank(delta, expert, x)
    addTo(z, delta, weights[i] as number)
  }
}

/** Σ p_e l_e (MoV, arXiv:2309.05444). */
function mixedVectors({ experts, gate }: Routed, x: Float32Array): Float64Array {
  const weights = gate.kind === 'attention' ? [] : expertWeights(gate, x)
  let mixed = new Float64Array(0)
  for (const [i, expert] of experts.entries()) {
    if (expert.kind !== 'vector') continue
    if (mixed.length === 0) mixed = new Float64Array(expert.values.length)
    expert.values.forEach((value, j) => {
      mixed[j] = (mixed[j] as number) + (weights[i] as number) * value
    })
  }
  return mixed
}

function multiplyIn(z: Float32Array, factor: Float32Array | undefined): void {
  if (factor !== undefined) multiplyBy(z, factor)
}
