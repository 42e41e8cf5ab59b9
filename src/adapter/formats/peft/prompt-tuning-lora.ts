// PROMPT_TUNING_LORA, the type of DePT's fork of PEFT (arXiv:2309.05173): a soft prompt, and alpha / √r · (A B)[p] added to the embedding
// of prompt token p. The reference pads every prompt to `max_length` behind it; here nothing is padded and later tokens get nothing.

import { product } from './matrix-product.ts'
import type { PeftContext, PeftScope } from './peft-context.ts'
import { compilePromptTuning } from './prompt-learning.ts'
import { checkStoredRank, readSize } from './rank.ts'

const A_KEY = 'prompt_encoder.lora_embedding_A'
const B_KEY = 'prompt_encoder.lora_embedding_B'

export function compilePromptTuningLora(context: PeftContext): PeftScope {
  const { config, tensors, sites, model, refuse } = context
  config.ignore(['hidden_size', 'init_lora_weights'])
  config.oneOf('bias', ['none'], 'none')
  // Absent is true, the default of the fork.
  if (config.value('save_lora_embeddings') === false) {
    throw refuse('save_lora_embeddings', 'is false, so the file lacks what is added to the embeddings of the prompt')
  }
  for (const key of ['load_lora_embeddings', 'load_lora_embedding_B']) {
    if (config.value(key) === false) throw refuse(key, 'is false: what is trained would not be served; remove the key')
  }
  const rank = readSize(context, 'r')
  const numPositions = readSize(context, 'max_length')
  const scale = config.number('lora_alpha') / Math.sqrt(rank)
  const width = model.spec.hiddenSize
  checkStoredRank(context, A_KEY, numPositions, 'max_length')
  checkStoredRank(context, B_KEY, rank)
  const a = tensors.require(A_KEY, [numPositions, rank]).values
  const b = tensors.require(B_KEY, [rank, width]).values
  sites.addPositionRows(Float32Array.from(product(a, b, rank), (value) => scale * value))
  return compilePromptTuning(context)
}
