// The types of OpenDelta that are no bottleneck: low-rank updates, biases, soft prompts.

import type { VirtualTokens } from '../../primitive.ts'
import { checkRank } from '../peft/rank.ts'
import { type DeltaContext, findTargets } from './delta-context.ts'

/** y + lora_alpha / r · B A x (arXiv:2106.09685). */
export function compileLora(context: DeltaContext): null {
  const { config, tensors, sites, refuse } = context
  config.ignore(['lora_dropout'])
  const rank = checkRank(context, 'lora_r', config.number('lora_r'))
  const scale = config.number('lora_alpha') / rank
  for (const { path, module } of findTargets(context, 'lora')) {
    if (module?.kind !== 'linear' && module?.kind !== 'head') throw refuse('modified_modules', `${path} is no linear`)
    const a = tensors.require(`${path}.lora.lora_A`, [rank, module.inFeatures]).values
    const b = tensors.require(`${path}.lora.lora_B`, [module.outFeatures, rank]).values
    sites.addLowRank(module, { rank, scale, a, b, biasB: null })
  }
  return null
}

/**
 * Biases of linears and layer norms, the base's own or new ones; behind a norm that has none, as RMSNorm, one of its own
 * (arXiv:2106.10199). A name of a whole sublayer means all it holds, so that the file says which there are.
 */
export function compileBitfit({ config, model, tensors, sites, refuse }: DeltaContext): null {
  config.ignore(['exclude_modules', 'modified_modules'])
  for (const module of model.modules.values()) {
    const { path, kind, outFeatures, refusal } = module
    const isNorm = kind === 'norm'
    const bias = tensors.take(`${path}.bias`, [outFeatures])?.values ?? null
    const behind = tensors.take(`${path}.bitfit.bias`, [outFeatures])?.values ?? null
    if (bias === null && behind === null) continue
    if (refusal !== null) throw refuse(path, refusal)
    if (bias !== null && isNorm && !module.hasBias) throw refuse(`${path}.bias`, 'belongs to a norm that has no bias')
    if (bias !== null) sites.addOutputVector(module, 'bias', bias)
    if (behind !== null) sites.addOutputVector(module, 'shift', behind)
  }
  return null
}

/** Rows in front of the embeddings, at positions 0 and on (arXiv:2104.08691). */
export function compileSoftPrompt({ config, model, tensors, refuse }: DeltaContext): VirtualTokens {
  config.ignore(['exclude_modules', 'init_range', 'modified_modules', 'other_expand_ids', 'token_init'])
  const numTokens = config.number('soft_token_num')
  const { maxPositions, hiddenSize } = model.spec
  if (!Number.isInteger(numTokens) || numTokens < 1 || numTokens >= maxPositions) {
    throw refuse('soft_token_num', `${numTokens} is no number of tokens for this model's ${maxPositions} positions`)
  }
  const { values: rows } = tensors.require('soft_prompt_layer.soft_embeds', [numTokens, hiddenSize])
  return { kind: 'soft-prompt', numTokens, rows, layerRows: null }
}
