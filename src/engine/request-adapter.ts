import type { AdapterId } from '../core/ids.ts'
import { LorikeetError } from '../errors.ts'
import type { EngineAdapters } from './engine-adapters.ts'
import type { RequestAdapter } from './request.ts'

const BASE_MODEL: RequestAdapter = {
  id: null,
  name: '',
  activationStart: 0,
  kvDigest: '',
  numVirtualTokens: 0,
  numGivenTokens: 0,
  positionOffset: 0,
  promptCoupling: 'none',
}

/** What the adapter a request names means for this prompt. Throws MODEL_NOT_FOUND for a generation that is gone. */
export function resolveAdapter(adapters: EngineAdapters, id: AdapterId | null, prompt: Int32Array): RequestAdapter {
  if (id === null) return BASE_MODEL
  const traits = adapters.isKnown(id) ? adapters.compiled(id) : null
  if (traits === null) throw new LorikeetError('MODEL_NOT_FOUND', { model: adapters.info(id)?.name ?? `adapter ${id}` })
  const name = adapters.info(id)?.name ?? ''
  const { invocationTokenIds, ...rest } = traits
  const adapter = { id, name, activationStart: 0, ...rest }
  if (invocationTokenIds === null) return adapter
  const activationStart = lastOccurrence(prompt, invocationTokenIds)
  // Activated LoRA (Greenewald et al. 2025): a prompt that never invokes it runs on the base model from end to end.
  if (activationStart < 0) return { ...BASE_MODEL, name }
  return { ...adapter, activationStart: rest.numVirtualTokens + activationStart }
}

/** Start of the last occurrence of `pattern`; -1 where there is none. */
export function lastOccurrence(tokens: Int32Array, pattern: readonly number[]): number {
  if (pattern.length === 0) return -1
  for (let start = tokens.length - pattern.length; start >= 0; start--) {
    if (pattern.every((token, i) => tokens[start + i] === token)) return start
  }
  return -1
}
