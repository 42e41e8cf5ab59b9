// The decoder of model/decoder-spec.ts as one ONNX graph.

import { at } from '../../core/invariant.ts'
import { addLayerRows, editStream, hasLayerRows, hasStreamEdits, sublayerOutput } from './extras/layer-hooks.ts'
import { attention, softcap } from './graph-attention.ts'
import { GraphBuilder, type Value } from './graph-builder.ts'
import type { GraphContext } from './graph-context.ts'
import { baseLinear, linear } from './graph-linear.ts'
import { mlp } from './graph-mlp.ts'
import { addAndNormalize, normalize, normalizeRole } from './graph-norm.ts'
import { variantName } from './graph-variant.ts'

/** Outputs of every graph. What is not fetched is computed but not copied. */
export const OUTPUTS = {
  /** Keys, values of layer 0, keys, values of layer 1 ... [2 * numLayers * numTokens, numKvHeads, 1, headDim] */
  kv: 'kv',
  /** The head's product before the final soft cap. [numLogitRows, vocabSize] */
  scores: 'scores',
  /** [numLogitRows, vocabSize]; the scores themselves where there is no cap. */
  logits: 'logits',
  /** Argmax of the logits. [numLogitRows] */
  tokens: 'tokens',
  /** What the head multiplies. [numLogitRows, hiddenSize] */
  headInput: 'headInput',
} as const

/** Serialised model and the names of its inputs. */
export function buildDecoderGraph(context: Omit<GraphContext, 'graph'>): { model: Uint8Array; inputNames: readonly string[] } {
  const graph = new GraphBuilder()
  const built: GraphContext = { ...context, graph }
  const { spec } = context
  const ownKv: Value[] = []
  let hidden = graph.input('hidden', 'float32', ['numTokens', spec.hiddenSize])
  let delta: Value | null = null
  spec.layers.forEach((_, index) => {
    const groups = at(context.layout.layers, index)
    if (hasLayerRows(built, index)) {
      hidden = addLayerRows(built, index, delta === null ? hidden : graph.node('Add', [hidden, delta]))
      delta = null
    }
    const beforeAttention = addAndNormalize(built, hidden, delta, index, 'preAttn')
    const { normed } = beforeAttention
    const { mixed, keys, values } = attention(built, index, linear(built, groups.qkv, normed), normed)
    ownKv.push(keys, values)
    const attended = sublayerOutput(built, `layers.${index}.attnOut`, {
      f: normalizeRole(built, linear(built, groups.o, mixed), index, 'postAttn'),
      residual: beforeAttention.hidden,
      normed,
    })
    const beforeMlp = addAndNormalize(built, beforeAttention.hidden, attended, index, 'preMlp')
    hidden = beforeMlp.hidden
    delta = sublayerOutput(built, `layers.${index}.mlpOut`, {
      f: normalizeRole(built, mlp(built, index, beforeMlp.normed), index, 'postMlp'),
      residual: hidden,
      normed: beforeMlp.normed,
    })
    if (hasStreamEdits(built, index)) {
      hidden = editStream(built, index, graph.node('Add', [hidden, delta]))
      delta = null
    }
  })
  if (delta !== null) hidden = graph.node('Add', [hidden, delta])
  graph.output(graph.node('Concat', ownKv, { axis: 0 }), OUTPUTS.kv, 'float32', ['numKvRows', spec.numKvHeads, 1, spec.headDim])
  buildHead(built, hidden)
  return { model: graph.encode(variantName(context.variant)), inputNames: graph.inputNames }
}

function buildHead(context: GraphContext, hidden: Value): void {
  const { graph, spec, layout, variant } = context
  const rows = graph.node('Gather', [hidden, graph.input('logitRows', 'int32', ['numLogitRows'])], { axis: 0 })
  const entries = variant.hasVectors ? graph.input('logitEntries', 'int32', ['numLogitRows']) : ''
  const headInput = normalize(context, rows, 'finalNorm', entries)
  const scores = baseLinear(context, layout.lmHead, headInput, true)
  const logits = spec.finalSoftcap === null ? scores : softcap(context, scores, spec.finalSoftcap)
  const tokens = graph.node('ArgMax', [logits], { axis: 1, keepdims: 0 })
  graph.output(headInput, OUTPUTS.headInput, 'float32', ['numLogitRows', spec.hiddenSize])
  graph.output(logits, logits === scores ? OUTPUTS.scores : OUTPUTS.logits, 'float32', ['numLogitRows', spec.vocabSize])
  if (logits !== scores) graph.output(scores, OUTPUTS.scores, 'float32', ['numLogitRows', spec.vocabSize])
  graph.output(tokens, OUTPUTS.tokens, 'int64', ['numLogitRows'])
}
