// The forward pass exactly as model/decoder-spec.ts and adapter/primitive.ts write it down, by calls: rows that one gate averages
// over are computed together, all others one at a time.

import { pooledGate } from '../../adapter/arithmetic/pooled-gate.ts'
import { edited, isInScope } from '../../adapter/arithmetic/stream-edit.ts'
import { sublayerOutput } from '../../adapter/arithmetic/sublayer-hook.ts'
import type { Hook } from '../../adapter/primitive.ts'
import type { SitePrimitives } from '../../adapter/site-primitives.ts'
import { callsOf } from '../../adapter/step-calls.ts'
import { NO_ADAPTER_SLOT } from '../../core/ids.ts'
import { at, invariant } from '../../core/invariant.ts'
import { givenRuns } from '../../core/step-plan.ts'
import type { LayerSpec, LinearRole, NormRole } from '../../model/decoder-spec.ts'
import { fillRope } from '../../model/rope.ts'
import { addSideAttention, attend, rotateHeads, softcap } from './attention.ts'
import { addLayerRows, embedTokens } from './embedding.ts'
import type { ForwardContext } from './forward-context.ts'
import { applyLinear } from './linear.ts'
import { addRows, createMatrix, type Matrix, rowOf } from './matrix.ts'
import { applyMlp } from './mlp.ts'
import { applyNorm } from './norm.ts'
import { findTokenPlaces, type TokenPlace } from './token-places.ts'

/** A step on its way through the layers. */
interface Pass extends ForwardContext {
  readonly places: readonly TokenPlace[]
  /** Every row of the step once. */
  readonly calls: readonly (readonly number[])[]
}

/** Writes the step's keys and values into the pool; returns logits of the plan's logit rows, [numLogitRows, vocabSize]. */
export function runForward(context: ForwardContext): Float32Array {
  const { plan, spec } = context
  const baseRows = Array.from({ length: plan.numTokens }, (_, row) => row).filter(
    (row) => slotOf(context, row) === NO_ADAPTER_SLOT,
  )
  const calls = [...callsOf(plan), ...baseRows.map((row) => [row])]
  const pass: Pass = { ...context, places: findTokenPlaces(plan, context.pool), calls }
  writePrefixes(context)
  const hidden = embedTokens(context, pass.places)
  spec.layers.forEach((layer, index) => {
    addLayerRows(context, index, hidden)
    addRows(hidden, attentionBlock(pass, layer, index, hidden))
    addRows(hidden, mlpBlock(pass, layer, index, hidden))
    editStream(pass, index, hidden)
  })
  return computeLogits(pass, hidden)
}

/** Prefix tuning (arXiv:2101.00190): K' = [Kp; K], V' = [Vp; V], the prefix as the adapter stores it. */
function writePrefixes({ adapters, plan, pool }: ForwardContext): void {
  for (const { adapterSlot, firstToken, kvSlots } of givenRuns(plan, pool.blockSize)) {
    const prefix = adapters.virtualTokens(adapterSlot)
    invariant(prefix?.kind === 'prefix', `adapter slot ${adapterSlot} has a prefix`)
    const copy = (from: Float32Array, index: number, to: Float32Array): void => {
      to.set(from.subarray((firstToken + index) * pool.width, (firstToken + index + 1) * pool.width))
    }
    for (const [index, kvSlot] of kvSlots.entries()) {
      for (const [layer, keys] of prefix.keys.entries()) copy(keys, index, pool.keys(layer, kvSlot))
      for (const [layer, values] of prefix.values.entries()) copy(values, index, pool.values(layer, kvSlot))
    }
  }
}

function attentionBlock(pass: Pass, layer: LayerSpec, index: number, hidden: Matrix): Matrix {
  const { plan, pool } = pass
  const input = normalize(pass, index, 'preAttn', copyOf(hidden))
  const q = normalize(pass, index, 'qNorm', linearRows(pass, index, 'q', input))
  const k = normalize(pass, index, 'kNorm', linearRows(pass, index, 'k', input))
  const v = linearRows(pass, index, 'v', input)
  rotate(pass, layer, q, k)
  for (let token = 0; token < plan.numTokens; token++) {
    pool.keys(index, plan.slotMapping[token] as number).set(rowOf(k, token))
    pool.values(index, plan.slotMapping[token] as number).set(rowOf(v, token))
  }
  const mixed = attentionRows(pass, layer, index, input, q)
  const added = normalize(pass, index, 'postAttn', linearRows(pass, index, 'o', mixed))
  return hookRows(pass, index, 'attnOut', { f: added, residual: hidden, normed: input })
}

/** Heads of each token, side attention added. `input` is what q was made from. [numTokens, numHeads * headDim] */
function attentionRows(pass: Pass, layer: LayerSpec, index: number, input: Matrix, q: Matrix): Matrix {
  const { spec, pool, plan, calls, places } = pass
  const mixed = createMatrix(plan.numTokens, spec.numHeads * spec.headDim)
  for (const call of calls) {
    const gates = prefixGates(pass, call, index, input)
    for (const token of call) {
      const { kvSlots, numAlwaysVisible } = at(places, token)
      const inOrder = kvSlots.slice(numAlwaysVisible)
      const inWindow = layer.slidingWindow === null ? inOrder : inOrder.slice(-layer.slidingWindow)
      const visible = [...kvSlots.slice(0, numAlwaysVisible), ...inWindow]
      // A window drops the oldest keys: those of a prefix first, unless it is visible from everywhere.
      const numDropped = numAlwaysVisible > 0 ? 0 : kvSlots.length - visible.length
      const numGated = Math.max(0, gates.numTokens - numDropped)
      attend(spec, pool, { ...gates, layer: index, kvSlots: visible, numGated }, rowOf(q, token), rowOf(mixed, token))
      const sides = primitivesAt(pass, token, `layers.${index}.attention`)?.sideAttentions ?? []
      for (const side of sides) addSideAttention(spec, side, rowOf(q, token), rowOf(mixed, token))
    }
  }
  return mixed
}

/** What scales the keys and values of the call's prefix in this layer: σ(gate · normed input), averaged over the call. */
function prefixGates({ adapters, plan }: Pass, call: readonly number[], layer: number, input: Matrix) {
  const prefix = adapters.virtualTokens(plan.adapterSlotOfToken[at(call, 0)] as number)
  if (prefix?.kind !== 'prefix' || prefix.gates === null) return { numTokens: 0, keyGate: 1, valueGate: 1 }
  const xs = call.map((token) => rowOf(input, token))
  const { keys, values } = at(prefix.gates, layer)
  return { numTokens: prefix.numTokens, keyGate: pooledGate(keys, xs), valueGate: pooledGate(values, xs) }
}

function mlpBlock(pass: Pass, layer: LayerSpec, index: number, hidden: Matrix): Matrix {
  const input = normalize(pass, index, 'preMlp', copyOf(hidden))
  const output = mapCalls(pass, input, hidden.width, (xs, site) => {
    const apply = (role: LinearRole, rows: readonly Float32Array[]) =>
      applyLinear(pass.weights.get(`layers.${index}.${role}`), site(`layers.${index}.${role}`), rows)
    return applyMlp(layer.mlp, pass.weights, index, xs, apply)
  })
  const added = normalize(pass, index, 'postMlp', output)
  return hookRows(pass, index, 'mlpOut', { f: added, residual: hidden, normed: input })
}

interface HookMatrices {
  readonly f: Matrix
  readonly residual: Matrix
  readonly normed: Matrix
}

function hookRows(pass: Pass, layer: number, hook: Hook, { f, residual, normed }: HookMatrices): Matrix {
  for (const call of pass.calls) {
    const site = primitivesAt(pass, at(call, 0), `layers.${layer}.${hook}`)
    if (site === null) continue
    const pick = (matrix: Matrix) => call.map((token) => rowOf(matrix, token))
    const rows = sublayerOutput(site.modules, { f: pick(f), residual: pick(residual), normed: pick(normed) })
    for (const [i, token] of call.entries()) rowOf(f, token).set(at(rows, i))
  }
  return f
}

function editStream(pass: Pass, layer: number, hidden: Matrix): void {
  for (const [token, { promptIndex, promptLength }] of pass.places.entries()) {
    const row = rowOf(hidden, token)
    for (const edit of primitivesAt(pass, token, `layers.${layer}.blockOut`)?.streamEdits ?? []) {
      if (isInScope(edit.scope, promptIndex, promptLength)) row.set(edited(edit, row))
    }
  }
}

function computeLogits(pass: Pass, hidden: Matrix): Float32Array {
  const { spec, weights, plan } = pass
  const logits = createMatrix(plan.numLogitRows, spec.vocabSize)
  for (let i = 0; i < plan.numLogitRows; i++) {
    const token = plan.logitRows[i] as number
    const row = rowOf(hidden, token).slice()
    applyNorm(spec.norm, weights.get('finalNorm'), primitivesAt(pass, token, 'finalNorm'), row)
    const [scores = row] = applyLinear(weights.get('lmHead'), primitivesAt(pass, token, 'lmHead'), [row])
    rowOf(logits, i).set(scores.map((score) => softcap(score, spec.finalSoftcap)))
  }
  return logits.data
}

/** In place; a norm the model does not have is the identity. */
function normalize(pass: Pass, layer: number, role: NormRole, rows: Matrix): Matrix {
  const { spec, weights, plan } = pass
  if (!spec.norms.has(role)) return rows
  const site = `layers.${layer}.${role}`
  for (let token = 0; token < plan.numTokens; token++) {
    applyNorm(spec.norm, weights.get(site), primitivesAt(pass, token, site), rowOf(rows, token))
  }
  return rows
}

function rotate({ spec, plan }: Pass, layer: LayerSpec, q: Matrix, k: Matrix): void {
  if (layer.rope === null) return
  const half = layer.rope.rotaryDim / 2
  const cos = createMatrix(plan.numTokens, half)
  const sin = createMatrix(plan.numTokens, half)
  fillRope(layer.rope, plan.positions, plan.numTokens, cos.data, sin.data)
  for (let token = 0; token < plan.numTokens; token++) {
    rotateHeads(rowOf(q, token), spec.headDim, rowOf(cos, token), rowOf(sin, token))
    rotateHeads(rowOf(k, token), spec.headDim, rowOf(cos, token), rowOf(sin, token))
  }
}

function linearRows(pass: Pass, layer: number, role: LinearRole, input: Matrix): Matrix {
  const site = `layers.${layer}.${role}`
  const base = pass.weights.get(site)
  return mapCalls(pass, input, base.numOut, (xs, primitives) => applyLinear(base, primitives(site), xs))
}

/** `compute` for the rows of each call; it asks for the call's primitives by site. */
function mapCalls(
  pass: Pass,
  input: Matrix,
  width: number,
  compute: (xs: readonly Float32Array[], site: (name: string) => SitePrimitives | null) => readonly Float32Array[],
): Matrix {
  const output = createMatrix(pass.plan.numTokens, width)
  for (const call of pass.calls) {
    const rows = compute(
      call.map((token) => rowOf(input, token)),
      (name) => primitivesAt(pass, at(call, 0), name),
    )
    for (const [i, token] of call.entries()) rowOf(output, token).set(at(rows, i))
  }
  return output
}

function primitivesAt(context: ForwardContext, token: number, site: string): SitePrimitives | null {
  return context.adapters.find(slotOf(context, token), site)
}

function slotOf({ plan }: ForwardContext, token: number): number {
  return plan.adapterSlotOfToken[token] as number
}

function copyOf(matrix: Matrix): Matrix {
  return { width: matrix.width, data: matrix.data.slice() }
}
