// ADAPTION_PROMPT (LLaMA-Adapter, arXiv:2303.16199): in the last layers every query also attends to trained embeddings, with a softmax
// of its own and a gate. Their keys and values, projected by the base model and never rotated, are computed here.

import type { ParameterName } from '../../../model/decoder-spec.ts'
import type { ModelSource } from '../../../model/model-source.ts'
import { show } from './config-fields.ts'
import { productTransposed } from './matrix-product.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { readSize } from './rank.ts'

/** The architectures PEFT defines it for, less GPT-2, where it acts behind the output projection. */
const MODEL_TYPES = ['llama', 'mistral']

const ATTENTION = 'self_attn'

export function compileAdaptionPrompt(context: PeftContext): PeftScope {
  const { model, config, tensors, sites, refuse } = context
  const { hiddenSize, numLayers } = model.spec
  const numTokens = readSize(context, 'adapter_len')
  const numAdapted = readSize(context, 'adapter_layers')
  const target = config.value('target_modules') ?? ATTENTION
  if (target !== ATTENTION)
    throw refuse('target_modules', `${show(target)} is not supported; PEFT puts the prompt at ${ATTENTION}`)
  if (numAdapted > numLayers) throw refuse('adapter_layers', `${numAdapted}, and the model has ${numLayers} layers`)
  checkModel(context)
  for (let layer = numLayers - numAdapted; layer < numLayers; layer++) {
    const prefix = `model.layers.${layer}.${ATTENTION}`
    const prompt = tensors.require(`${prefix}.adaption_prompt`, [1, numTokens, hiddenSize]).values
    const [gate = 0] = tensors.require(`${prefix}.adaption_gate`, [1]).values
    const keys = project(model, `layers.${layer}.k`, prompt)
    const values = project(model, `layers.${layer}.v`, prompt)
    sites.addSideAttention(layer, { numTokens, keys, values, gate })
  }
  return EVERYWHERE
}

/** The reference takes head counts from widths, and runs its own term through the whole output projection, bias included. */
function checkModel({ model, refuse }: PeftContext): void {
  const { modelType, numHeads, headDim, hiddenSize } = model.spec
  if (!MODEL_TYPES.includes(modelType))
    throw refuse('peft_type', `ADAPTION_PROMPT is served for ${MODEL_TYPES.join(' and ')}, not for ${modelType}`)
  if (numHeads * headDim !== hiddenSize)
    throw refuse('peft_type', 'ADAPTION_PROMPT is not defined where heads do not add up to the hidden size')
  if (model.parameters.has('layers.0.o.bias'))
    throw refuse('peft_type', 'ADAPTION_PROMPT beside a bias of the output projection is not supported')
}

/** prompt [T, hidden] -> [T, kv]. */
function project(model: ModelSource, site: ParameterName, prompt: Float32Array): Float32Array {
  const weight = model.read(site)
  const bias = model.parameters.has(`${site}.bias`) ? model.read(`${site}.bias`) : null
  const projected = productTransposed(prompt, weight, model.spec.hiddenSize)
  return Float32Array.from(projected, (value, i) => value + (bias?.[i % bias.length] ?? 0))
}
