// How tokens are written in answers that list them.

import type { Tokenizer } from '../../tokenizer/tokenizer.ts'

export interface TokenNames {
  name(tokenId: number): string
  /** Null when the model has no tokenizer. */
  bytes(tokenId: number): number[] | null
}

/** Token texts, or `token_id:N` when asked for and where there is no tokenizer. */
export function createTokenNames(tokenizer: Tokenizer | null, isById: boolean): TokenNames {
  return {
    name: (tokenId) => (isById || tokenizer === null ? `token_id:${tokenId}` : tokenizer.tokenText(tokenId)),
    bytes: (tokenId) => (tokenizer === null ? null : [...tokenizer.tokenBytes(tokenId)]),
  }
}
