// Prefix tuning (arXiv:2101.00190) as AdapterHub runs it: keys and values come before position 0, after the rotary embedding, and stay
// visible from everywhere. The reparameterising MLP is still in the file and is run here, once.

import { activate } from '../../arithmetic/activate.ts'
import type { PooledGate, Prefix } from '../../primitive.ts'
import { product } from '../peft/matrix-product.ts'
import { transpose } from '../peft/module-weights.ts'
import { readActivation } from './activation.ts'
import { adaptedLayers, type HubContext } from './hub-context.ts'

const ROOT = 'model.prefix_tuning.prefix_tunings.self_prefix'

/** The pool of prefixes hangs on the first layer's attention, so the file stores them a second time. */
const SECOND_COPY = /^model\.layers\.\d+\.self_attn\.prefix_tuning\.pool\.prefix_tunings/

export function compilePrefix(context: HubContext): Prefix {
  const { config, tensors, model, refuse } = context
  config.ignore(['bottleneck_size', 'dropout', 'init_weights_seed'])
  // Of encoders and cross-attention, which a decoder has none of.
  config.ignore(['cross_prefix', 'encoder_prefix'])
  const { numLayers, numKvHeads, headDim } = model.spec
  if (adaptedLayers(context).length < numLayers) throw refuse('leave_out', 'a prefix that some layers lack is not served')
  const numTokens = config.number('prefix_length')
  if (!Number.isInteger(numTokens) || numTokens < 1) throw refuse('prefix_length', `${numTokens} is not a length`)
  const isFlat = config.flag('flat')
  const activation = readActivation(context, 'tanh')
  const isGated = config.flag('use_gating')
  const sharesGate = config.flag('shared_gating')
  config.finish()
  const root = tensors.hasUnder(ROOT) || tensors.has(`${ROOT}.control_trans`) ? ROOT : secondRoot(numLayers, tensors)
  if (root === ROOT) tensors.skipMatching(SECOND_COPY)
  const width = numKvHeads * headDim
  const numOut = 2 * numLayers * width
  const stored = isFlat
    ? tensors.require(`${root}.control_trans`, [numTokens * numOut]).values
    : runMlp(context, root, numTokens, numOut, (value) => activate(activation, value))
  const half = (index: number) => {
    const array = new Float32Array(numTokens * width)
    for (let token = 0; token < numTokens; token++) {
      const start = token * numOut + index * width
      array.set(stored.subarray(start, start + width), token * width)
    }
    return array
  }
  const layers = Array.from({ length: numLayers }, (_, layer) => layer)
  return {
    kind: 'prefix',
    numTokens,
    keys: layers.map((layer) => half(2 * layer)),
    values: layers.map((layer) => half(2 * layer + 1)),
    positions: 'no-shift',
    gates: isGated ? layers.map((layer) => readGates(context, layer, sharesGate)) : null,
  }
}

/** Files that keep only the copy inside the first layer. */
function secondRoot(numLayers: number, tensors: HubContext['tensors']): string {
  for (let layer = 0; layer < numLayers; layer++) {
    const root = `model.layers.${layer}.self_attn.prefix_tuning.pool.prefix_tunings.self_prefix`
    if (tensors.hasUnder(root)) return root
  }
  return ROOT
}

/** act(E W0ᵀ + b0) W2ᵀ + b2, [numTokens, numOut]. */
function runMlp(
  { tensors, model, refuse }: HubContext,
  root: string,
  numTokens: number,
  numOut: number,
  act: (value: number) => number,
): Float32Array {
  const inner = `${root}.control_trans.0.weight`
  const size = tensors.leadingSize(inner)
  if (size === null) throw refuse(inner, 'missing from the file; the config asks for a reparameterised prefix')
  const width = model.spec.hiddenSize
  const embedding = tensors.require(`${root}.wte.weight`, [numTokens, width]).values
  const w0 = tensors.require(inner, [size, width]).values
  const b0 = tensors.require(`${root}.control_trans.0.bias`, [size]).values
  const w2 = tensors.require(`${root}.control_trans.2.weight`, [numOut, size]).values
  const b2 = tensors.require(`${root}.control_trans.2.bias`, [numOut]).values
  const hidden = product(embedding, transpose(w0, size, width), width).map((value, i) => act(value + (b0[i % size] as number)))
  return Float32Array.from(product(hidden, transpose(w2, numOut, size), size), (value, i) => value + (b2[i % numOut] as number))
}

/** A linear of one output for both, or of two: keys, values. */
function readGates({ tensors, model }: HubContext, layer: number, isShared: boolean): { keys: PooledGate; values: PooledGate } {
  const path = `model.layers.${layer}.self_attn.prefix_tuning.prefix_gates`
  const width = model.spec.hiddenSize
  const numGates = isShared ? 1 : 2
  const weight = tensors.require(`${path}.weight`, [numGates, width]).values
  const bias = tensors.require(`${path}.bias`, [numGates]).values
  const gate = (row: number) => ({ weight: weight.subarray(row * width, (row + 1) * width), bias: bias[row] as number })
  return { keys: gate(0), values: gate(numGates - 1) }
}
