// Types of MoE-PEFT (https://github.com/TUDB-Labs/MoE-PEFT): mixtures of low-rank updates, routed by token at each linear.
//
//   MOLA       W x + Σ p_e s B_e A_e x at every linear, p the top_k of softmax(G x), divided by their sum (arXiv:2402.08562)
//   LORAMOE    the same over all experts in the feed-forward network, one plain low-rank update elsewhere (arXiv:2312.09979)

import type { ModuleInfo } from '../../../model/module-map.ts'
import type { Gate, LowRank } from '../../primitive.ts'
import { type LinearKind, openTargets, QUERY_AND_VALUE } from './linear-kind.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { checkStoredRank, readSize } from './rank.ts'

const KIND: LinearKind = {
  trainingKeys: ['lora_dropout', 'lora_init', 'router_aux_loss_coef', 'router_init_range', 'router_loss'],
  defaultTargets: QUERY_AND_VALUE,
  targetedBias: 'lora_only',
  takesConv1d: false,
}

interface Mixture {
  readonly rank: number
  readonly scale: number
  readonly numExperts: number
  /** Null = all. */
  readonly topK: number | null
}

export function compileMola(context: PeftContext): PeftScope {
  const { config, refuse } = context
  config.oneOf('routing_strategy', ['mola'], 'mola')
  const topK = readSize(context, 'top_k')
  const mixture = readMixture(context, topK)
  if (topK > mixture.numExperts) throw refuse('top_k', `${topK} of ${mixture.numExperts} experts cannot be chosen`)
  for (const module of openTargets(context, KIND).modules) compileMixture(context, module, mixture)
  return EVERYWHERE
}

export function compileLoraMoe(context: PeftContext): PeftScope {
  context.config.oneOf('routing_strategy', ['loramoe'], 'loramoe')
  const mixture = readMixture(context, null)
  for (const module of openTargets(context, KIND).modules) {
    if (module.path.includes('.mlp.')) compileMixture(context, module, mixture)
    else context.sites.addLowRank(module, readExpert(context, module, module.path, mixture))
  }
  return EVERYWHERE
}

function readMixture(context: PeftContext, topK: number | null): Mixture {
  const { config } = context
  config.mustBeUnset('use_dora', 'is applied by the writer in some of its modules only; it is not served in a mixture')
  const rank = readSize(context, 'r')
  const scale = config.number('lora_alpha') / (config.flag('use_rslora') ? Math.sqrt(rank) : rank)
  return { rank, scale, numExperts: readSize(context, 'num_experts'), topK }
}

function compileMixture(context: PeftContext, module: ModuleInfo, mixture: Mixture): void {
  const { tensors, sites, refuse } = context
  const { path, inFeatures, parts } = module
  const { numExperts, topK } = mixture
  if (parts.length !== 1) throw refuse('target_modules', `${path} is several linears in one, where a mixture is not served`)
  const gate: Gate = {
    kind: 'linear',
    weight: tensors.require(`${path}.moe_gate.weight`, [numExperts, inFeatures]).values,
    bias: null,
    temperature: 1,
    topK,
    renormalize: topK !== null,
  }
  const experts = Array.from({ length: numExperts }, (_, e) => readExpert(context, module, `${path}.experts.${e}`, mixture))
  sites.addRouted(module, { experts, gate, sublayerWeight: 1 })
}

function readExpert(context: PeftContext, module: ModuleInfo, path: string, { rank, scale }: Mixture): LowRank {
  const { tensors } = context
  checkStoredRank(context, `${path}.lora_A.weight`, rank)
  const a = tensors.require(`${path}.lora_A.weight`, [rank, module.inFeatures]).values
  const b = tensors.require(`${path}.lora_B.weight`, [module.outFeatures, rank]).values
  return { kind: 'low-rank', rank, scale, a, b, biasB: null }
}
