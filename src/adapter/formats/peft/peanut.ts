// PEANUT (arXiv:2410.01870): ΔW = scaling · B · Dᵀ, where D is a small network's reading of the base weight. With Dᵀ [r, in]:
// Dᵀ = φ(A · W); `depth` encoders Dᵀ = φ(E_i · Dᵀ), remembering what entered each; as many decoders Dᵀ = φ(F_i · Dᵀ) plus what was
// remembered last. Nothing depends on the request, so the network runs here and leaves a low-rank update.

import type { ModuleInfo } from '../../../model/module-map.ts'
import { type LinearKind, type LinearTargets, openTargets, QUERY_AND_VALUE } from './linear-kind.ts'
import { product } from './matrix-product.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { checkStoredRank, readSize } from './rank.ts'

const PEANUT: LinearKind = {
  trainingKeys: ['init_weights'],
  defaultTargets: QUERY_AND_VALUE,
  targetedBias: null,
  takesConv1d: false,
}

const SQRT_2_OVER_PI = Math.sqrt(2 / Math.PI)

/** `act_fn` by the names of transformers. */
const ACTIVATIONS = {
  gelu_new: (x: number) => 0.5 * x * (1 + Math.tanh(SQRT_2_OVER_PI * (x + 0.044715 * x ** 3))),
  gelu_pytorch_tanh: (x: number) => 0.5 * x * (1 + Math.tanh(SQRT_2_OVER_PI * (x + 0.044715 * x ** 3))),
  leaky_relu: (x: number) => (x < 0 ? 0.01 * x : x),
  linear: (x: number) => x,
  relu: (x: number) => Math.max(x, 0),
  relu2: (x: number) => Math.max(x, 0) ** 2,
  sigmoid: (x: number) => 1 / (1 + Math.exp(-x)),
  silu: (x: number) => x / (1 + Math.exp(-x)),
  swish: (x: number) => x / (1 + Math.exp(-x)),
  tanh: Math.tanh,
} as const

type ActivationName = keyof typeof ACTIVATIONS

interface Network {
  readonly rank: number
  readonly depth: number
  readonly scale: number
  readonly activation: (x: number) => number
}

export function compilePeanut(context: PeftContext): PeftScope {
  const { config, refuse } = context
  const rank = readSize(context, 'r')
  const depth = config.number('depth')
  if (!Number.isInteger(depth) || depth < 0) throw refuse('depth', `${depth} is not a number of layers`)
  const name = config.oneOf<ActivationName>('act_fn', Object.keys(ACTIVATIONS) as ActivationName[], 'relu')
  const network: Network = { rank, depth, scale: config.number('scaling'), activation: ACTIVATIONS[name] }
  const targets = openTargets(context, PEANUT)
  for (const module of targets.modules) compileModule(context, targets, module, network)
  return EVERYWHERE
}

function compileModule(context: PeftContext, targets: LinearTargets, module: ModuleInfo, network: Network): void {
  const { sites, tensors } = context
  const { path, outFeatures } = module
  const { rank, depth, scale, activation } = network
  checkStoredRank(context, `${path}.peanut_A.weight`, rank)
  const a = tensors.require(`${path}.peanut_A.weight`, [rank, outFeatures]).values
  const b = tensors.require(`${path}.peanut_B.weight`, [outFeatures, rank]).values
  const layer = (name: string, i: number, input: Float64Array) => {
    const weight = tensors.require(`${path}.peanut_${name}.${i}.weight`, [rank, rank]).values
    return product(weight, input, rank).map(activation)
  }
  let hidden = product(a, targets.weightOf(module), outFeatures).map(activation)
  const remembered: Float64Array[] = []
  for (let i = 0; i < depth; i++) {
    remembered.push(hidden)
    hidden = layer('encoders', i, hidden)
  }
  for (let i = 0; i < depth; i++) {
    const residual = remembered[depth - 1 - i]
    hidden = layer('decoders', i, hidden).map((value, n) => value + (residual?.[n] ?? 0))
  }
  sites.addLowRank(module, { rank, scale, a: Float32Array.from(hidden), b, biasB: null })
}
