import type { FinishReason } from './messages.ts'
import type { EngineRequest } from './request.ts'

export interface StopCause {
  readonly reason: FinishReason
  /** The stop token, where one of `stopTokenIds` ended it; null for EOS and lengths. */
  readonly stopTokenId: number | null
}

const EOS: StopCause = { reason: 'stop', stopTokenId: null }
const LENGTH: StopCause = { reason: 'length', stopTokenId: null }

/** Whether the request ends with its last output token; stop strings are the server's affair. */
export function stopCauseOf(request: EngineRequest, tokenId: number, maxModelLen: number): StopCause | null {
  const { sampling, numOutputTokens } = request
  if (numOutputTokens >= sampling.minTokens) {
    if (!sampling.ignoreEos && sampling.eosTokenIds.includes(tokenId)) return EOS
    if (sampling.stopTokenIds.includes(tokenId)) return { reason: 'stop', stopTokenId: tokenId }
  }
  return numOutputTokens >= sampling.maxTokens || request.numTokens >= maxModelLen ? LENGTH : null
}
