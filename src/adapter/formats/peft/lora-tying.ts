// `ensure_weight_tying` (PEFT 0.18): on a model that ties head and embedding, the adapter's changes of the two are tied as well.

import { invariant } from '../../../core/invariant.ts'
import type { ModuleInfo } from '../../../model/module-map.ts'
import type { LoraOptions, Strength } from './lora-options.ts'
import { areEqual, findBySite, transpose } from './module-weights.ts'
import { tiedPair } from './modules-to-save.ts'
import type { PeftContext } from './peft-context.ts'
import { matchingKeys } from './python-regex.ts'
import type { TargetRules } from './target-modules.ts'

/** Names of the matrices that the option looks for; the reference knows no others. */
const EMBEDDING_NAMES = ['embed_tokens', 'lm_head']

interface TiedTargets {
  readonly rules: TargetRules
  /** Set when one saved matrix serves both. */
  readonly saved: { readonly embedding: ModuleInfo; readonly head: ModuleInfo } | null
  readonly isSaved: (module: ModuleInfo) => boolean
  /** The head, when it follows the embedding's low-rank update. */
  readonly lowRankHead: readonly ModuleInfo[]
}

/** What `ensure_weight_tying` changes about targets and saved modules; nothing where it is off or the model is not tied. */
export function tiedTargets(context: PeftContext, options: LoraOptions): TiedTargets {
  const { rules } = options
  const none: TiedTargets = { rules, saved: null, isSaved: () => false, lowRankHead: [] }
  const pair = tiedPair(context.model)
  if (pair === null || !options.isTyingEnsured) return none
  const isEmbeddingName = (name: string) => EMBEDDING_NAMES.includes(name.split('.').at(-1) ?? '')
  if (rules.modulesToSave.some(isEmbeddingName)) {
    return { ...none, saved: pair, isSaved: (module: ModuleInfo) => module === pair.embedding || module === pair.head }
  }
  if (typeof rules.targets === 'string') {
    const wrap = { prefix: '^(?:', suffix: ')$' }
    const matched = matchingKeys(rules.targets, wrap, EMBEDDING_NAMES, 'target_modules', context.refuse)
    if (matched.size > 0)
      throw context.refuse('ensure_weight_tying', 'needs target_modules as a list of names, not as a pattern')
    return none
  }
  if (!rules.targets.some(isEmbeddingName)) return none
  if (options.isDora) throw context.refuse('ensure_weight_tying', 'is not supported together with use_dora')
  const targets = [...rules.targets.filter((name) => !isEmbeddingName(name)), pair.embedding.path]
  return { ...none, rules: { ...rules, targets }, lowRankHead: [pair.head] }
}

/** The head of a tied model under `ensure_weight_tying` reads the embedding's update transposed. */
export function compileTiedHead(context: PeftContext, head: ModuleInfo, strength: Strength): void {
  const { model, sites, tensors, refuse } = context
  const embedding = findBySite(model, 'embed')
  invariant(embedding !== null, 'a tied model has an embedding')
  const delta = sites
    .build()
    .get('embed')
    ?.find((primitive) => primitive.kind === 'low-rank')
  const { rank } = strength
  if (delta?.kind !== 'low-rank' || delta.rank !== rank)
    throw refuse('ensure_weight_tying', `${head.path} and ${embedding.path} have different ranks`)
  const a = transpose(delta.b, embedding.inFeatures, rank)
  const b = transpose(delta.a, rank, embedding.outFeatures)
  const storedA = tensors.take(`${head.path}.lora_A.weight`, [rank, head.inFeatures])
  const storedB = tensors.take(`${head.path}.lora_B.weight`, [head.outFeatures, rank])
  if ((storedA !== null && !areEqual(storedA.values, a)) || (storedB !== null && !areEqual(storedB.values, b))) {
    throw refuse('ensure_weight_tying', `the file holds different updates for ${head.path} and ${embedding.path}`)
  }
  sites.addLowRank(head, { rank, scale: strength.scale, a, b, biasB: null })
}
