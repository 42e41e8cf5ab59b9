// IA3 (arXiv:2205.05638): y = l ⊙ (W x + b), or y = W (l ⊙ x) + b at feed-forward modules. No scale and nothing to fold.

import type { ModuleInfo } from '../../../model/module-map.ts'
import { type LinearKind, openTargets } from './linear-kind.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { matchingKeys } from './python-regex.ts'

const KEY_VALUE_DOWN = ['k_proj', 'v_proj', 'down_proj']
const QUERY_VALUE_DOWN = ['q_proj', 'v_proj', 'down_proj']

const IA3: LinearKind = {
  trainingKeys: ['fan_in_fan_out', 'init_ia3_weights'],
  defaultTargets: {
    gemma2: QUERY_VALUE_DOWN,
    gemma3_text: QUERY_VALUE_DOWN,
    gpt2: ['c_attn', 'mlp.c_proj'],
    llama: KEY_VALUE_DOWN,
    mistral: KEY_VALUE_DOWN,
    qwen2: QUERY_VALUE_DOWN,
    qwen3: QUERY_VALUE_DOWN,
  },
  targetedBias: null,
  takesConv1d: true,
}

export function compileIa3(context: PeftContext): PeftScope {
  const feedforward = readFeedforward(context)
  const { modules } = openTargets(context, IA3)
  const isFeedforward = feedforwardTest(context, feedforward, modules)
  for (const module of modules) compileModule(context, module, isFeedforward(module))
  return EVERYWHERE
}

function compileModule({ tensors, sites, refuse }: PeftContext, module: ModuleInfo, isFeedforward: boolean): void {
  const { path, outFeatures, inFeatures } = module
  const key = `${path}.ia3_l`
  const shape = isFeedforward ? [1, inFeatures] : [outFeatures, 1]
  // On a square layer the shape alone tells what was trained: a row scales inputs, a column outputs.
  const stored = tensors.shape(key)
  const isOther = stored !== null && stored.length === 2 && stored[isFeedforward ? 1 : 0] === 1
  if (isOther && outFeatures > 1 && inFeatures > 1) {
    throw refuse(
      'feedforward_modules',
      `${path} is stored [${stored.join(', ')}] where the config makes it [${shape.join(', ')}]`,
    )
  }
  const { values } = tensors.require(key, shape)
  if (isFeedforward) sites.addInputScale(module, values)
  else sites.addOutputVector(module, 'output-scale', values)
}

/** Names, or one pattern. Unlike elsewhere an empty list is not "the default": it means none. */
function readFeedforward({ config, model, refuse }: PeftContext): readonly string[] | string {
  const field = 'feedforward_modules'
  const value = config.value(field)
  if (Array.isArray(value) && value.length === 0) return []
  const names = config.names(field) ?? (model.spec.modelType === 'gpt2' ? ['mlp.c_proj'] : null)
  if (names !== null) return names
  if (IA3.defaultTargets[model.spec.modelType] === undefined) throw refuse(field, 'missing, and this model has no default')
  return ['down_proj']
}

/** The reference compares names by plain `endsWith`, without a dot boundary. */
function feedforwardTest(
  { refuse }: PeftContext,
  names: readonly string[] | string,
  modules: readonly ModuleInfo[],
): (module: ModuleInfo) => boolean {
  if (typeof names !== 'string') return ({ path }) => names.some((name) => path.endsWith(name))
  const paths = modules.map(({ path }) => path)
  const matched = matchingKeys(names, { prefix: '^(?:', suffix: ')$' }, paths, 'feedforward_modules', refuse)
  return ({ path }) => matched.has(path)
}
