// BEFT: a trained vector is added to the outputs of a linear.

import { type LinearKind, openTargets } from './linear-kind.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'

const VALUE = ['v_proj']

const BEFT: LinearKind = {
  trainingKeys: ['init_weights'],
  defaultTargets: {
    gemma2: VALUE,
    gemma3_text: VALUE,
    llama: VALUE,
    mistral: VALUE,
    mixtral: VALUE,
    qwen2: VALUE,
    qwen3: VALUE,
  },
  targetedBias: null,
  takesConv1d: false,
}

export function compileBeft(context: PeftContext): PeftScope {
  for (const module of openTargets(context, BEFT).modules) {
    const { path, outFeatures } = module
    const { values } = context.tensors.require(`${path}.beft_bias`, [1, outFeatures])
    context.sites.addOutputVector(module, 'shift', values)
  }
  return EVERYWHERE
}
