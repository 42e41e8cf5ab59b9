// The types that act by virtual tokens in front of the prompt. Files hold finished tensors: whatever encoder, projection or shift
// the trainer used is already applied, and its options say nothing about inference.

import type { Prefix, SoftPrompt } from '../../primitive.ts'
import { show } from './config-fields.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { readTaskId } from './task-id.ts'

const EMBEDDINGS_KEY = 'prompt_embeddings'

/** PROMPT_TUNING (arXiv:2104.08691). */
export function compilePromptTuning(context: PeftContext): PeftScope {
  context.config.ignore(['prompt_tuning_init', 'prompt_tuning_init_text', 'tokenizer_kwargs', 'tokenizer_name_or_path'])
  return softPrompt(context, numVirtualTokens(context))
}

/** P_TUNING (arXiv:2103.10385), after its MLP or LSTM. */
export function compilePTuning(context: PeftContext): PeftScope {
  context.config.ignore(['encoder_dropout', 'encoder_hidden_size', 'encoder_num_layers', 'encoder_reparameterization_type'])
  return softPrompt(context, numVirtualTokens(context))
}

/** CPT (arXiv:2410.17222): context tokens with their learned shift added. Its length is that of the token list, whatever else is said. */
export function compileCpt(context: PeftContext): PeftScope {
  const { config, refuse } = context
  config.ignore(['num_virtual_tokens', 'opt_weighted_loss_type', 'opt_loss_decay_factor', 'tokenizer_name_or_path'])
  config.ignore(['opt_projection_epsilon', 'opt_projection_format_epsilon'])
  const lengthOf = (key: string, fallback: number): number => {
    const value = config.value(key)
    if (value === null) return fallback
    if (Array.isArray(value) && value.length > 0) return value.length
    throw refuse(key, `${show(value)} is not a list with one entry a virtual token`)
  }
  const numTokens = lengthOf('cpt_token_ids', 1)
  for (const key of ['cpt_mask', 'cpt_tokens_type_mask']) {
    const length = lengthOf(key, numTokens)
    if (length !== numTokens) throw refuse(key, `has ${length} entries beside ${numTokens} cpt_token_ids`)
  }
  return softPrompt(context, numTokens)
}

/**
 * MULTITASK_PROMPT_TUNING (arXiv:2303.02861): P ⊙ (cols[t] · rows[t]). The reference wants the task t with every call; here one
 * adapter serves one task, named by `task_id` in its config.
 */
export function compileMultitaskPromptTuning(context: PeftContext): PeftScope {
  const { config, tensors, model } = context
  config.ignore(['prompt_tuning_init', 'prompt_tuning_init_text', 'tokenizer_kwargs', 'tokenizer_name_or_path'])
  config.ignore(['prompt_tuning_init_state_dict_path', 'prompt_tuning_init_task'])
  const numTokens = numVirtualTokens(context)
  const numTasks = count(context, 'num_tasks')
  const rank = count(context, 'num_ranks')
  const taskId = readTaskId(context, numTasks)
  const width = model.spec.hiddenSize
  const cols = tensors.require('prefix_task_cols', [numTasks, numTokens, rank]).values
  const rows = tensors.require('prefix_task_rows', [numTasks, rank, width]).values
  const scope = softPrompt(context, numTokens)
  const prompt = scope.virtualTokens.rows
  for (let token = 0; token < numTokens; token++) {
    for (let i = 0; i < width; i++) {
      let factor = 0
      for (let r = 0; r < rank; r++) {
        const col = cols[(taskId * numTokens + token) * rank + r] as number
        factor += col * (rows[(taskId * rank + r) * width + i] as number)
      }
      prompt[token * width + i] = (prompt[token * width + i] as number) * factor
    }
  }
  return scope
}

/** PREFIX_TUNING (arXiv:2101.00190). */
export function compilePrefixTuning(context: PeftContext): PeftScope {
  // A projection (`prefix_projection`) was applied when the file was written.
  context.config.ignore(['encoder_hidden_size', 'init_weights', 'prefix_projection'])
  return prefix(context)
}

/** CARTRIDGE (arXiv:2506.06266): a trained KV cache, which has the layout of a prefix. */
export function compileCartridge(context: PeftContext): PeftScope {
  context.config.ignore(['num_frozen_tokens'])
  return prefix(context)
}

function softPrompt(context: PeftContext, numTokens: number): PeftScope & { readonly virtualTokens: SoftPrompt } {
  const { config, tensors, model, warnings } = context
  const { hiddenSize, modelType } = model.spec
  config.ignore(['num_attention_heads', 'num_layers'])
  expect(context, 'token_dim', hiddenSize)
  refuseOtherShapes(context)
  if (modelType === 'gemma2') {
    warnings.push('the soft prompt is used as stored; transformers before 5 scaled it with the embeddings of Gemma 2')
  }
  const rows = tensors.require(EMBEDDINGS_KEY, [numTokens, hiddenSize]).values
  return { ...EVERYWHERE, virtualTokens: { kind: 'soft-prompt', numTokens, rows, layerRows: null } }
}

/** `prompt_embeddings` [T, 2 L, numKvHeads, headDim]: of each token, keys and values of layer 0, of layer 1, … */
function prefix(context: PeftContext): PeftScope & { readonly virtualTokens: Prefix } {
  const { tensors, model } = context
  const { numLayers, numKvHeads, headDim } = model.spec
  const width = numKvHeads * headDim
  const numTokens = numVirtualTokens(context)
  expect(context, 'num_layers', numLayers)
  // Writers before grouped queries were understood stored query heads here; such a prefix cannot run on this model.
  expect(context, 'num_attention_heads', numKvHeads)
  expect(context, 'token_dim', width)
  refuseOtherShapes(context)
  const stored = tensors.require(EMBEDDINGS_KEY, [numTokens, 2 * numLayers * width]).values
  const halves = Array.from({ length: 2 * numLayers }, (_, half) => {
    const array = new Float32Array(numTokens * width)
    for (let token = 0; token < numTokens; token++) {
      const start = (token * 2 * numLayers + half) * width
      array.set(stored.subarray(start, start + width), token * width)
    }
    return array
  })
  const keys = halves.filter((_, half) => half % 2 === 0)
  const values = halves.filter((_, half) => half % 2 === 1)
  return { ...EVERYWHERE, virtualTokens: { kind: 'prefix', numTokens, keys, values, positions: 'shift', gates: null } }
}

function numVirtualTokens(context: PeftContext): number {
  const numTokens = count(context, 'num_virtual_tokens')
  const { maxPositions } = context.model.spec
  if (numTokens < maxPositions) return numTokens
  throw context.refuse(
    'num_virtual_tokens',
    `${numTokens} leave no room for a prompt in this model's ${maxPositions} positions`,
  )
}

function count({ config, refuse }: PeftContext, key: string): number {
  const value = config.number(key)
  if (!Number.isInteger(value) || value < 1) throw refuse(key, `${show(value)} is not a positive whole number`)
  return value
}

/** A size that writers store beside the tensors; null = whatever the model has. */
function expect({ config, refuse }: PeftContext, key: string, size: number): void {
  const value = config.value(key)
  if (value === null || value === size) return
  throw refuse(key, `${show(value)}, where this model has ${size}; is it an adapter of another base model?`)
}

function refuseOtherShapes(context: PeftContext): void {
  expect(context, 'num_transformer_submodules', 1)
  context.config.mustBeUnset('modules_to_save', 'modules saved beside virtual tokens are not supported')
}
