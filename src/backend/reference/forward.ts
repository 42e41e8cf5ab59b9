// The forward pass, one token row at a time, exactly as model/decoder-spec.ts writes it down.

import { invariant } from '../../core/invariant.ts'
import { givenRuns, type StepPlan, virtualTokenId } from '../../core/step-plan.ts'
import type { DecoderSpec, LayerSpec, LinearRole, NormRole } from '../../model/decoder-spec.ts'
import { fillRope } from '../../model/rope.ts'
import { attend, rotateHeads, softcap } from './attention.ts'
import type { KvPool } from './kv-pool.ts'
import { applyEmbedding, applyLinear } from './linear.ts'
import { addRows, createMatrix, type Matrix, rowOf } from './matrix.ts'
import { applyMlp } from './mlp.ts'
import { applyNorm } from './norm.ts'
import type { ResidentAdapters } from './resident-adapters.ts'
import type { ModelWeights } from './site-weights.ts'

export interface ForwardContext {
  readonly spec: DecoderSpec
  readonly weights: ModelWeights
  readonly adapters: ResidentAdapters
  readonly pool: KvPool
  readonly plan: StepPlan
}

/** Writes the step's keys and values into the pool; returns logits of the plan's logit rows, [numLogitRows, vocabSize]. */
export function runForward(context: ForwardContext): Float32Array {
  const visible = findVisibleSlots(context)
  writePrefixes(context)
  const hidden = embedTokens(context)
  context.spec.layers.forEach((layer, index) => {
    addRows(hidden, attentionBlock(context, layer, index, hidden, visible))
    addRows(hidden, mlpBlock(context, layer, index, hidden))
  })
  return computeLogits(context, hidden)
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

/** KV slots of each token's sequence up to and including the token. */
function findVisibleSlots({ plan, pool }: ForwardContext): readonly (readonly number[])[] {
  const visible: number[][] = []
  for (let seq = 0; seq < plan.numSeqs; seq++) {
    const start = plan.queryStart[seq] as number
    const end = plan.queryStart[seq + 1] as number
    const contextLen = plan.contextLens[seq] as number
    const kvSlots = Array.from({ length: contextLen }, (_, key) => {
      const block = plan.blockTables[seq * plan.maxBlocksPerSeq + Math.floor(key / pool.blockSize)] as number
      invariant(block >= 0 && block < pool.numBlocks, `block ${block} of sequence ${seq} is in the pool`)
      return block * pool.blockSize + (key % pool.blockSize)
    })
    for (let token = start; token < end; token++) {
      const ofToken = kvSlots.slice(0, contextLen - (end - 1 - token))
      invariant(ofToken.at(-1) === plan.slotMapping[token], `token ${token} is written where its block table reads it`)
      visible.push(ofToken)
    }
  }
  invariant(visible.length === plan.numTokens, 'every token belongs to a sequence')
  return visible
}

function embedTokens(context: ForwardContext): Matrix {
  const { spec, weights, plan } = context
  const hidden = createMatrix(plan.numTokens, spec.hiddenSize)
  for (let token = 0; token < plan.numTokens; token++) {
    const row = rowOf(hidden, token)
    const tokenId = plan.tokenIds[token] as number
    if (tokenId < 0) row.set(softPromptRow(context, token))
    else {
      invariant(tokenId < spec.vocabSize, `token id ${tokenId} is in the vocabulary`)
      applyEmbedding(weights.get('embed'), primitivesAt(context, token, 'embed'), tokenId, row)
      // An adapter's change of the embedding is scaled with it: it acts on the table, not on what the table's rows become.
      for (let i = 0; i < row.length; i++) row[i] = (row[i] as number) * spec.embedScale
    }
    if (!spec.learnedPositions) continue
    const position = new Float32Array(spec.hiddenSize)
    applyEmbedding(
      weights.get('positions'),
      primitivesAt(context, token, 'positions'),
      plan.positions[token] as number,
      position,
    )
    for (let i = 0; i < row.length; i++) row[i] = (row[i] as number) + (position[i] as number)
  }
  return hidden
}

/** Prompt tuning (arXiv:2104.08691): [P; E], the rows of P as the adapter stores them. */
function softPromptRow({ spec, adapters, plan }: ForwardContext, token: number): Float32Array {
  const prompt = adapters.virtualTokens(plan.adapterSlotOfToken[token] as number)
  const index = virtualTokenId(plan.tokenIds[token] as number)
  invariant(prompt?.kind === 'soft-prompt' && index < prompt.numTokens, `the adapter gives virtual token ${index}`)
  return prompt.rows.subarray(index * spec.hiddenSize, (index + 1) * spec.hiddenSize)
}

function attentionBlock(
  context: ForwardContext,
  layer: LayerSpec,
  index: number,
  hidden: Matrix,
  visible: readonly (readonly number[])[],
): Matrix {
  const { spec, pool, plan } = context
  const input = normalize(context, index, 'preAttn', copyOf(hidden))
  const q = normalize(context, index, 'qNorm', linearRows(context, index, 'q', input))
  const k = normalize(context, index, 'kNorm', linearRows(context, index, 'k', input))
  const v = linearRows(context, index, 'v', input)
  rotate(context, layer, q, k)
  for (let token = 0; token < plan.numTokens; token++) {
    pool.keys(index, plan.slotMapping[token] as number).set(rowOf(k, token))
    pool.values(index, plan.slotMapping[token] as number).set(rowOf(v, token))
  }
  const mixed = createMatrix(plan.numTokens, spec.numHeads * spec.headDim)
  visible.forEach((kvSlots, token) => {
    const inWindow = layer.slidingWindow === null ? kvSlots : kvSlots.slice(-layer.slidingWindow)
    attend(spec, pool, { layer: index, kvSlots: inWindow }, rowOf(q, token), rowOf(mixed, token))
  })
  return normalize(context, index, 'postAttn', linearRows(context, index, 'o', mixed))
}

function mlpBlock(context: ForwardContext, layer: LayerSpec, index: number, hidden: Matrix): Matrix {
  const input = normalize(context, index, 'preMlp', copyOf(hidden))
  const output = createMatrix(context.plan.numTokens, context.spec.hiddenSize)
  for (let token = 0; token < context.plan.numTokens; token++) {
    const apply = (role: LinearRole, x: Float32Array) => linearRow(context, token, `layers.${index}.${role}`, x)
    rowOf(output, token).set(applyMlp(layer.mlp, context.weights, index, rowOf(input, token), apply))
  }
  return normalize(context, index, 'postMlp', output)
}

function computeLogits(context: ForwardContext, hidden: Matrix): Float32Array {
  const { spec, weights, plan } = context
  const logits = createMatrix(plan.numLogitRows, spec.vocabSize)
  for (let i = 0; i < plan.numLogitRows; i++) {
    const token = plan.logitRows[i] as number
    const row = rowOf(hidden, token).slice()
    applyNorm(spec.norm, weights.get('finalNorm'), primitivesAt(context, token, 'finalNorm'), row)
    const scores = linearRow(context, token, 'lmHead', row)
    rowOf(logits, i).set(scores.map((score) => softcap(score, spec.finalSoftcap)))
  }
  return logits.data
}

/** In place; a norm the model does not have is the identity. */
function normalize(context: ForwardContext, layer: number, role: NormRole, rows: Matrix): Matrix {
  const { spec, weights, plan } = context
  if (!spec.norms.has(role)) return rows
  const site = `layers.${layer}.${role}`
  for (let token = 0; token < plan.numTokens; token++) {
    applyNorm(spec.norm, weights.get(site), primitivesAt(context, token, site), rowOf(rows, token))
  }
  return rows
}

function rotate(context: ForwardContext, layer: LayerSpec, q: Matrix, k: Matrix): void {
  const { spec, plan } = context
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

function linearRows(context: ForwardContext, layer: number, role: LinearRole, input: Matrix): Matrix {
  const site = `layers.${layer}.${role}`
  const output = createMatrix(context.plan.numTokens, context.weights.get(site).numOut)
  for (let token = 0; token < context.plan.numTokens; token++) {
    rowOf(output, token).set(linearRow(context, token, site, rowOf(input, token)))
  }
  return output
}

function linearRow(context: ForwardContext, token: number, site: string, x: Float32Array): Float32Array {
  const base = context.weights.get(site)
  const out = new Float32Array(base.numOut)
  applyLinear(base, primitivesAt(context, token, site), x, out)
  return out
}

function primitivesAt({ adapters, plan }: ForwardContext, token: number, site: string) {
  return adapters.find(plan.adapterSlotOfToken[token] as number, site)
}

function copyOf(matrix: Matrix): Matrix {
  return { width: matrix.width, data: matrix.data.slice() }
}
