// Text to token ids and back, for one Hugging Face tokenizer.json.

import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers'
import { isJsonObject } from '../core/json.ts'
import { LorikeetError } from '../errors.ts'
import { Detokenizer, type DetokenizerOptions } from './detokenizer.ts'
import { buildTokenTable, type TokenTable } from './token-table.ts'

export class Tokenizer {
  readonly table: TokenTable
  /** As in tokenizer_config.json; null when absent. */
  readonly bosToken: string | null
  readonly eosToken: string | null
  /** Side that is cut; the left one unless the files say otherwise, as in vLLM: what was said last matters most. */
  readonly truncationSide: 'left' | 'right'
  readonly #huggingFace: HuggingFaceTokenizer

  /** Takes the parsed tokenizer.json and tokenizer_config.json. Throws MODEL_INVALID or MODEL_UNSUPPORTED. */
  constructor(tokenizerJson: unknown, tokenizerConfig: unknown) {
    const config = isJsonObject(tokenizerConfig) ? tokenizerConfig : {}
    this.table = buildTokenTable(tokenizerJson)
    try {
      this.#huggingFace = new HuggingFaceTokenizer(tokenizerJson as object, config)
    } catch (error) {
      const detail = error instanceof Error ? error.message : String(error)
      throw new LorikeetError('MODEL_INVALID', { reason: `tokenizer.json: ${detail}` }, { cause: error })
    }
    this.bosToken = tokenContent(config['bos_token'])
    this.eosToken = tokenContent(config['eos_token'])
    this.truncationSide = config['truncation_side'] === 'right' ? 'right' : 'left'
  }

  /** Token ids of `text`; `addSpecialTokens` applies the post-processor, which adds for example `<s>`. */
  encode(text: string, addSpecialTokens: boolean): number[] {
    if (text.length === 0 && !addSpecialTokens) return []
    const ids: (number | undefined)[] = this.#huggingFace.encode(text, { add_special_tokens: addSpecialTokens }).ids
    // A vocabulary without an unknown token has no id for characters outside it; Rust tokenizers drop them too.
    return ids.filter((id) => id !== undefined)
  }

  /** Text of a whole sequence: the concatenation of what a Detokenizer streams. */
  decode(tokenIds: Iterable<number>, options: DetokenizerOptions): string {
    const detokenizer = new Detokenizer(this.table, options)
    let text = ''
    for (const tokenId of tokenIds) text += detokenizer.push(tokenId)
    return text + detokenizer.flush()
  }

  /** Id of a token string of the vocabulary, null when there is none. */
  tokenId(token: string): number | null {
    return this.#huggingFace.token_to_id(token) ?? null
  }

  /** The token as the vocabulary writes it, `▁the` or `Ġthe`; '' for an id without one. */
  tokenString(tokenId: number): string {
    return this.table.tokens[tokenId] ?? ''
  }

  /**
   * What a token adds in the middle of a text, leading blank included, so that the tokens of a text concatenate to it.
   * Part of a character reads `bytes:\xe2\x82`, as in OpenAI's API: several such tokens stay distinct.
   */
  tokenText(tokenId: number): string {
    const text = this.table.texts[tokenId]
    if (text !== null) return text ?? ''
    let escaped = 'bytes:'
    for (const byte of this.tokenBytes(tokenId)) escaped += `\\x${byte.toString(16).padStart(2, '0')}`
    return escaped
  }

  tokenBytes(tokenId: number): Uint8Array {
    return this.table.bytes[tokenId] ?? EMPTY
  }
}

const EMPTY = new Uint8Array(0)

/** Special tokens of tokenizer_config.json are strings or `{content}`. */
function tokenContent(value: unknown): string | null {
  if (typeof value === 'string') return value
  return isJsonObject(value) && typeof value['content'] === 'string' ? value['content'] : null
}
