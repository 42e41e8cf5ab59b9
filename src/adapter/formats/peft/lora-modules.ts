// One targeted module of a LORA adapter: plain, DoRA, or with the part that its initialisation took out of the base weight.

import type { ModuleInfo } from '../../../model/module-map.ts'
import { rowsOf } from '../site-builder.ts'
import { truncatedQr, truncatedSvd } from './base-decomposition.ts'
import { columnFactors, rowFactors, scaleRows } from './dora.ts'
import { readA, readB } from './lora-factors.ts'
import type { LoraOptions, Strength } from './lora-options.ts'
import { isAllZero, readPart, readWeight, scaleColumns } from './module-weights.ts'
import type { PeftContext } from './peft-context.ts'
import { checkStoredRank } from './rank.ts'
import { tailOf } from './weight-tail.ts'

interface Delta extends Strength {
  readonly a: Float32Array // [rank, in]; embedding [rank, vocab]
  readonly b: Float32Array // [out, rank]; embedding [hidden, rank]
  readonly biasB: Float32Array | null // [out]
}

/** A linear or the head. `override` is a base weight stored in the adapter file. */
export function compileLinear(
  context: PeftContext,
  options: LoraOptions,
  module: ModuleInfo,
  strength: Strength,
  override: Float32Array | undefined,
): void {
  const { sites, tensors } = context
  const { path, outFeatures } = module
  checkStoredRank(context, `${path}.lora_A.weight`, strength.rank)
  const a = readA(context, options.compact, module, strength.rank)
  const b = readB(context, options.compact, module, strength.rank)
  const biasB = options.hasLoraBias ? tensors.require(`${path}.lora_B.bias`, [outFeatures]).values : null
  warnIfUntrained(context, module, b)
  const delta: Delta = { ...strength, a, b, biasB }
  if (options.isKasa) sites.addLowRank(module, withoutTail(context, module, delta, override))
  else if (options.isDora) addDora(context, module, delta, override)
  // A stored base layer is already what the initialisation left of it.
  else if (options.baseInit !== 'none' && override === undefined) {
    sites.addLowRank(module, withoutInitialPart(context, module, delta, options.baseInit))
  } else sites.addLowRank(module, delta)
}

function addDora(context: PeftContext, module: ModuleInfo, delta: Delta, override: Float32Array | undefined): void {
  const { model, sites } = context
  const magnitude = readMagnitude(context, module, module.outFeatures)
  const factors = new Float32Array(module.outFeatures)
  for (const part of module.parts) {
    const weight = override === undefined ? readPart(model, part) : rowsOf(override, module.inFeatures, part)
    const b = rowsOf(delta.b, delta.rank, part)
    factors.set(rowFactors(weight, rowsOf(magnitude, 1, part), { ...delta, b }), part.rowStart)
  }
  checkFactors(context, module, factors)
  sites.addOutputVector(module, 'factor', factors)
  sites.addLowRank(module, { ...delta, b: scaleRows(delta.b, factors, delta.rank) })
}

export function compileEmbedding(
  context: PeftContext,
  options: LoraOptions,
  module: ModuleInfo,
  strength: Strength,
  override: Float32Array | undefined,
): void {
  const { model, sites, tensors, refuse } = context
  const { path, outFeatures: vocabSize, inFeatures: width } = module
  if (options.isKasa) throw refuse('kasa_config', `has no meaning for the embedding ${path}`)
  if (options.hasLoraBias) throw refuse('lora_bias', `has no meaning for the embedding ${path}`)
  if (options.baseInit !== 'none')
    throw refuse('init_lora_weights', `${options.baseInit} has no meaning for the embedding ${path}`)
  checkStoredRank(context, `${path}.lora_embedding_A`, strength.rank)
  const a = tensors.require(`${path}.lora_embedding_A`, [strength.rank, vocabSize]).values
  const b = tensors.require(`${path}.lora_embedding_B`, [width, strength.rank]).values
  warnIfUntrained(context, module, b)
  const delta: Delta = { ...strength, a, b, biasB: null }
  if (!options.isDora) {
    sites.addLowRank(module, delta)
    return
  }
  const factors = columnFactors(override ?? readWeight(model, module), readMagnitude(context, module, width), delta)
  checkFactors(context, module, factors)
  sites.addOutputVector(module, 'factor', factors)
  sites.addLowRank(module, { ...delta, b: scaleRows(b, factors, delta.rank) })
}

/** s · B diag(d) A, less the singular components that training dropped from the base: as many as the rank, the smallest. */
function withoutTail(context: PeftContext, module: ModuleInfo, delta: Delta, override: Float32Array | undefined): Delta {
  const { tensors, model, refuse } = context
  const { path, outFeatures, inFeatures, isConv1d } = module
  const { rank, scale } = delta
  if (isConv1d) throw refuse('kasa_config', `${path} is a Conv1D, which KaSA is not defined for`)
  if (rank >= Math.min(outFeatures, inFeatures))
    throw refuse('r', `${rank} leaves nothing of ${path} [${outFeatures}, ${inFeatures}]`)
  if (scale === 0) throw refuse('lora_alpha', '0 together with kasa_config')
  const diagonal = tensors.require(`${path}.lora_diag`, [rank]).values
  const tail = tailOf(override ?? readWeight(model, module), module, rank)
  if (tail === null) throw refuse('r', `the ${rank} smallest singular components of ${path} are not well defined in float32`)
  const a = new Float32Array(2 * rank * inFeatures)
  a.set(delta.a)
  a.set(tail.a, rank * inFeatures)
  const b = new Float32Array(outFeatures * 2 * rank)
  const trained = scaleColumns(delta.b, diagonal)
  for (let o = 0; o < outFeatures; o++) {
    b.set(trained.subarray(o * rank, (o + 1) * rank), o * 2 * rank)
    for (let k = 0; k < rank; k++) b[o * 2 * rank + rank + k] = -(tail.b[o * rank + k] as number) / scale
  }
  return { rank: 2 * rank, scale, a, b, biasB: null }
}

function withoutInitialPart(context: PeftContext, module: ModuleInfo, delta: Delta, init: 'pissa' | 'olora'): Delta {
  const { rank, scale } = delta
  const { outFeatures: rows, inFeatures: columns } = module
  if (init === 'olora' && module.isConv1d)
    throw context.refuse('init_lora_weights', `olora on ${module.path} (Conv1D) is not supported`)
  if (scale === 0) throw context.refuse('lora_alpha', `0 together with init_lora_weights = ${init}`)
  const weight = { values: readWeight(context.model, module), rows, columns }
  const initial = init === 'pissa' ? truncatedSvd(weight, rank) : truncatedQr(weight, rank)
  if (initial === null) {
    throw context.refuse(
      'init_lora_weights',
      `the rank-${rank} ${init} part of ${module.path} is not well defined; convert the adapter`,
    )
  }
  // PiSSA divides its factors by the scale, OLoRA does not: the base lost b·a there, s·b·a here. The common scale is s.
  const shrink = init === 'pissa' ? 1 / scale : 1
  const a = new Float32Array(2 * rank * columns)
  a.set(delta.a)
  a.set(initial.a, rank * columns)
  const b = new Float32Array(rows * 2 * rank)
  for (let o = 0; o < rows; o++) {
    for (let k = 0; k < rank; k++) {
      b[o * 2 * rank + k] = delta.b[o * rank + k] as number
      b[o * 2 * rank + rank + k] = -shrink * (initial.b[o * rank + k] as number)
    }
  }
  return { ...delta, rank: 2 * rank, a, b }
}

/** In memory the magnitude has a `.weight`, on disk it has none; both are met. */
function readMagnitude({ tensors }: PeftContext, module: ModuleInfo, width: number): Float32Array {
  const key = `${module.path}.lora_magnitude_vector`
  return tensors.require(tensors.has(`${key}.weight`) ? `${key}.weight` : key, [width]).values
}

function checkFactors({ refuse }: PeftContext, module: ModuleInfo, factors: Float32Array): void {
  if (!factors.every(Number.isFinite))
    throw refuse('use_dora', `a row of ${module.path} has norm 0, so its magnitude has no direction`)
}

function warnIfUntrained({ warnings }: PeftContext, module: ModuleInfo, b: Float32Array): void {
  if (isAllZero(b)) warnings.push(`${module.path}: B is all zero, as before training; the adapter does nothing there`)
}
