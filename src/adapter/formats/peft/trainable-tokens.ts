// Rows of the embedding (or head) that the adapter trained alone. Despite the tensor's name the rows are replacements.
// As a type of its own (`TRAINABLE_TOKENS`) and as the option `trainable_token_indices` of other types.

import type { ModuleInfo } from '../../../model/module-map.ts'
import { findBySite } from './module-weights.ts'
import { tiedPair } from './modules-to-save.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { readTargetRules, resolveTargets } from './target-modules.ts'

interface TokenRows {
  readonly module: ModuleInfo
  readonly tokenIds: readonly number[]
}

/** `peft_type` TRAINABLE_TOKENS. */
export function compileTrainableTokens(context: PeftContext): PeftScope {
  const { model, config, tensors, refuse } = context
  const embedding = findBySite(model, 'embed')
  const rules = readTargetRules(config, embedding === null ? null : [embedding.path], refuse)
  const tokenIds = config.tokenIds('token_indices', model.spec.vocabSize)
  config.ignore(['init_weights'])
  config.finish()
  const targets = resolveTargets(model.modules, rules, tensors, refuse)
  compileTokenRows(
    context,
    targets.map((module) => ({ module, tokenIds })),
    '.trainable_tokens_delta',
  )
  return EVERYWHERE
}

/** Reads `trainable_token_indices`: a list is the input embedding's, an object names its modules. */
export function readTokenOption(context: PeftContext): readonly TokenRows[] {
  const { model, config, refuse } = context
  const field = 'trainable_token_indices'
  const value = config.value(field)
  if (value === null) return []
  const { vocabSize } = model.spec
  if (Array.isArray(value)) {
    const module = findBySite(model, 'embed')
    return module === null ? [] : [{ module, tokenIds: config.checkTokenIds(field, value, vocabSize) }]
  }
  if (typeof value !== 'object') throw refuse(field, 'is neither a list of token ids nor an object of such lists')
  return Object.entries(value).map(([name, ids]) => {
    const [module, second] = [...model.modules.values()].filter(({ path }) => path.endsWith(name))
    if (module === undefined || second !== undefined) throw refuse(`${field}.${name}`, 'does not name one module of this model')
    return { module, tokenIds: config.checkTokenIds(`${field}.${name}`, ids, vocabSize) }
  })
}

/** Adds the rows; `suffix` follows the module path in the tensor's key. A tied head follows the embedding's rows. */
export function compileTokenRows(context: PeftContext, wanted: readonly TokenRows[], suffix: string): void {
  const pair = tiedPair(context.model)
  const ofEmbedding = wanted.find(({ module }) => module === pair?.embedding)
  const ofHead = wanted.find(({ module }) => module === pair?.head)
  const isShared = ofEmbedding !== undefined && (ofHead === undefined || haveSameIds(ofEmbedding, ofHead))
  for (const rows of wanted) {
    if (isShared && rows === ofHead) continue
    const compiled = readRows(context, rows, suffix)
    context.sites.addRows(rows.module, compiled)
    if (isShared && rows === ofEmbedding && pair !== null) context.sites.addRows(pair.head, compiled)
  }
}

/** Modules whose rows change: on a tied model the head's, too. */
export function modulesOfRows(context: PeftContext, wanted: readonly TokenRows[]): ModuleInfo[] {
  const modules = wanted.map(({ module }) => module)
  const pair = tiedPair(context.model)
  return pair !== null && modules.includes(pair.embedding) && !modules.includes(pair.head) ? [...modules, pair.head] : modules
}

function readRows(context: PeftContext, { module, tokenIds }: TokenRows, suffix: string) {
  const { tensors, refuse } = context
  const isTokenModule = module.parts.every(({ site }) => site === 'embed' || site === 'lmHead')
  if (!isTokenModule) throw refuse('trainable_token_indices', `${module.path} has no rows of tokens`)
  if (new Set(tokenIds).size !== tokenIds.length) throw refuse('trainable_token_indices', 'names a token twice')
  const width = module.inFeatures
  const { values } = tensors.require(module.path + suffix, [tokenIds.length, width])
  const order = tokenIds.map((_, i) => i).sort((i, j) => (tokenIds[i] as number) - (tokenIds[j] as number))
  const rows = new Float32Array(values.length)
  for (const [to, from] of order.entries()) rows.set(values.subarray(from * width, (from + 1) * width), to * width)
  return { rowIds: Int32Array.from(order, (i) => tokenIds[i] as number), rows }
}

function haveSameIds(a: TokenRows, b: TokenRows): boolean {
  return a.tokenIds.length === b.tokenIds.length && a.tokenIds.every((id, i) => id === b.tokenIds[i])
}
