// One choice in LoRAX's terms: its tokens with text and logprob each, and how it ended.

import type { TokenLogprobs } from '../../../engine/messages.ts'
import type { Tokenizer } from '../../../tokenizer/tokenizer.ts'
import type { Choice } from '../../generation/choice.ts'
import type { LoraxResult } from '../../request/lorax-call.ts'
import { alternatives, finite } from '../logprobs.ts'

interface PlainToken {
  readonly id: number
  readonly text: string
  readonly logprob: number | null
}

export interface LoraxToken extends PlainToken {
  readonly special: boolean
  /** Of speculative decoding, which there is none of. */
  readonly skipped: false
  readonly alternative_tokens?: readonly PlainToken[]
}

/** A token, and the most likely ones in its place as Text Generation Inference lists them. */
export interface LoraxStep {
  readonly token: LoraxToken
  readonly topTokens: readonly PlainToken[]
}

export class LoraxSequence {
  /** What the tokens taken so far say, up to a stop string. */
  text = ''
  readonly #tokenizer: Tokenizer
  readonly #result: LoraxResult
  /** Of `text`, in UTF-16 units, that tokens were given. */
  #numTokenChars = 0

  constructor(tokenizer: Tokenizer, result: LoraxResult) {
    this.#tokenizer = tokenizer
    this.#result = result
  }

  /** Takes what the choice has; the texts of all tokens of a finished choice, special ones aside, concatenate to `text`. */
  take(choice: Choice): LoraxStep[] {
    const { text, tokenIds, logprobs, tokenTexts } = choice.take()
    this.text += text
    return tokenIds.map((id, i) => {
      const isSpecial = this.#tokenizer.table.specialIds.has(id)
      // A stop string may end inside the last token, and an incomplete character ends with it.
      const isLast = choice.finish !== null && i === tokenIds.length - 1
      const plain = isLast ? this.text.slice(this.#numTokenChars) : (tokenTexts[i] ?? '')
      if (!isSpecial) this.#numTokenChars += plain.length
      return this.#step(id, isSpecial ? this.#tokenizer.tokenText(id) : plain, isSpecial, logprobs[i])
    })
  }

  /** Prompt tokens; nothing predicts the first. */
  prefill(promptTokenIds: Int32Array, entries: readonly TokenLogprobs[]): PlainToken[] {
    return Array.from(promptTokenIds, (id, i) => {
      const entry = i === 0 ? undefined : entries[i - 1]
      return { id, text: this.#tokenizer.tokenText(id), logprob: entry === undefined ? null : finite(entry.logprob) }
    })
  }

  #step(id: number, text: string, special: boolean, entry: TokenLogprobs | undefined): LoraxStep {
    const { numAlternatives, numTop } = this.#result
    const token: LoraxToken = { id, text, logprob: entry === undefined ? null : finite(entry.logprob), special, skipped: false }
    if (entry === undefined) return { token, topTokens: [] }
    return {
      token: numAlternatives === null ? token : { ...token, alternative_tokens: this.#best(entry, numAlternatives) },
      topTokens: numTop === 0 ? [] : this.#best(entry, numTop),
    }
  }

  #best(entry: TokenLogprobs, count: number): PlainToken[] {
    return alternatives(entry, count).map(({ tokenId, logprob }) => ({
      id: tokenId,
      text: this.#tokenizer.tokenText(tokenId),
      logprob: finite(logprob),
    }))
  }
}

export type LoraxFinish = 'length' | 'eos_token' | 'stop_sequence'

/** Null for a choice that the server ended. */
export function loraxFinish({ finish }: Choice): LoraxFinish | null {
  if (finish === null || finish.reason === 'abort') return null
  if (finish.reason === 'length') return 'length'
  return finish.stop === null ? 'eos_token' : 'stop_sequence'
}
