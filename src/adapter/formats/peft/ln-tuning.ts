// LN_TUNING (arXiv:2312.11420): the targeted modules, usually norms, are the adapter's own.

import { compileSaved, compileWhole, resolveSaved } from './modules-to-save.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { readTargetRules, resolveTargets } from './target-modules.ts'

const LLAMA_NORMS = ['input_layernorm', 'post_attention_layernorm', 'norm']
const GEMMA_NORMS = [
  'input_layernorm',
  'post_attention_layernorm',
  'pre_feedforward_layernorm',
  'post_feedforward_layernorm',
  'norm',
]

const DEFAULT_TARGETS: Readonly<Record<string, readonly string[]>> = {
  gemma2: GEMMA_NORMS,
  gemma3_text: GEMMA_NORMS,
  gpt2: ['ln_1', 'ln_2', 'ln_f'],
  llama: LLAMA_NORMS,
  mistral: LLAMA_NORMS,
  qwen2: ['post_attention_layernorm'],
  qwen3: ['post_attention_layernorm'],
}

export function compileLnTuning(context: PeftContext): PeftScope {
  const { model, config, tensors, refuse } = context
  const rules = readTargetRules(config, DEFAULT_TARGETS[model.spec.modelType] ?? null, refuse)
  config.finish()
  const targets = resolveTargets(model.modules, rules, tensors, refuse)
  const saved = resolveSaved(model.modules, rules.modulesToSave)
  for (const module of targets) {
    if (saved.includes(module)) throw refuse('target_modules', `${module.path} is also in modules_to_save`)
    compileWhole(context, module, `${module.path}.ln_tuning_layers`)
  }
  compileSaved(context, saved)
  return EVERYWHERE
}
