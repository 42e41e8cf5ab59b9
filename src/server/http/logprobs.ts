// Log probabilities in the three shapes of the API. They are of the model's own distribution, before temperature and penalties.

import type { TokenLogprobs } from '../../engine/messages.ts'
import type { TokenNames } from '../generation/token-names.ts'

// JSON has no infinity; vLLM and OpenAI send this.
const MIN_LOGPROB = -9999

export interface CompletionLogprobs {
  readonly text_offset: number[]
  readonly token_logprobs: (number | null)[]
  readonly tokens: string[]
  readonly top_logprobs: (Record<string, number> | null)[]
}

/** One token of a completion; `entry` is null for the first prompt token, which nothing predicts. */
export interface LogprobToken {
  readonly tokenId: number
  readonly offset: number
  readonly entry: TokenLogprobs | null
}

/** `numTop` alternatives a token, -1 = all; the token itself is added when it is not among them. */
export function completionLogprobs(tokens: readonly LogprobToken[], numTop: number, names: TokenNames): CompletionLogprobs {
  const result: CompletionLogprobs = { text_offset: [], token_logprobs: [], tokens: [], top_logprobs: [] }
  for (const { tokenId, offset, entry } of tokens) {
    result.text_offset.push(offset)
    result.tokens.push(names.name(tokenId))
    result.token_logprobs.push(entry === null ? null : finite(entry.logprob))
    result.top_logprobs.push(entry === null ? null : topByName(entry, numTop, names))
  }
  return result
}

function topByName(entry: TokenLogprobs, numTop: number, names: TokenNames): Record<string, number> {
  const top: Record<string, number> = {}
  const add = (tokenId: number, logprob: number) => {
    const name = names.name(tokenId)
    // Different tokens may read alike (`<0x41>` and `A`): the later one keeps its id for a name, so that none is lost.
    top[Object.hasOwn(top, name) ? `token_id:${tokenId}` : name] = finite(logprob)
  }
  for (const { tokenId, logprob } of alternatives(entry, numTop)) add(tokenId, logprob)
  if (!isAmong(entry, numTop)) add(entry.tokenId, entry.logprob)
  return top
}

export interface ChatLogprob {
  readonly token: string
  readonly logprob: number
  readonly bytes: number[] | null
}

export type ChatLogprobEntry = ChatLogprob & { readonly top_logprobs: ChatLogprob[] }

/** `message.logprobs.content` of chat: exactly `numTop` alternatives a token. */
export function chatLogprobs(entries: readonly TokenLogprobs[], numTop: number, names: TokenNames): ChatLogprobEntry[] {
  const item = (tokenId: number, logprob: number): ChatLogprob => ({
    token: names.name(tokenId),
    logprob: finite(logprob),
    bytes: names.bytes(tokenId),
  })
  return entries.map((entry) => ({
    ...item(entry.tokenId, entry.logprob),
    top_logprobs: alternatives(entry, numTop).map(({ tokenId, logprob }) => item(tokenId, logprob)),
  }))
}

export interface PromptLogprob {
  readonly logprob: number
  readonly rank: number
  readonly decoded_token: string
}

/** One entry a prompt token, the first null; each maps token id text to its value. */
export function promptLogprobs(
  entries: readonly TokenLogprobs[],
  numTop: number,
  names: TokenNames,
): (Record<string, PromptLogprob> | null)[] {
  return [
    null,
    ...entries.map((entry) => {
      const result: Record<string, PromptLogprob> = {}
      for (const { tokenId, logprob, rank } of alternatives(entry, numTop)) {
        result[tokenId] = { logprob: finite(logprob), rank, decoded_token: names.name(tokenId) }
      }
      result[entry.tokenId] ??= {
        logprob: finite(entry.logprob),
        rank: entry.rank,
        decoded_token: names.name(entry.tokenId),
      }
      return result
    }),
  ]
}

function* alternativesOf(entry: TokenLogprobs, numTop: number) {
  const count = numTop < 0 ? entry.topTokenIds.length : Math.min(numTop, entry.topTokenIds.length)
  for (let i = 0; i < count; i++) {
    yield { tokenId: entry.topTokenIds[i] as number, logprob: entry.topLogprobs[i] as number, rank: i + 1 }
  }
}

/** The `numTop` most likely tokens, best first; -1 = all that there are. */
export function alternatives(entry: TokenLogprobs, numTop: number) {
  return [...alternativesOf(entry, numTop)]
}

function isAmong(entry: TokenLogprobs, numTop: number): boolean {
  const index = entry.topTokenIds.indexOf(entry.tokenId)
  return index >= 0 && (numTop < 0 || index < numTop)
}

/** As JSON can hold it. Alternatives are stored in float32: the token's own value is rounded alike, so that the two compare equal. */
export function finite(logprob: number): number {
  return Number.isFinite(logprob) ? Math.fround(Math.max(logprob, MIN_LOGPROB)) : MIN_LOGPROB
}
