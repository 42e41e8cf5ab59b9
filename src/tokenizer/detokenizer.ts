// Token ids to text, one at a time. What it has returned so far is always a prefix of the decoded whole.

import { TextDecoder } from 'node:util'
import type { TokenTable } from './token-table.ts'

export interface DetokenizerOptions {
  /** Leaves special tokens out of the text. */
  readonly skipSpecialTokens: boolean
}

/** Streams one sequence. Never returns half a UTF-8 character: incomplete bytes wait for the next token or `flush`. */
export class Detokenizer {
  readonly #table: TokenTable
  readonly #skipped: ReadonlySet<number>
  /** Set once a token needed its neighbours; it then holds the incomplete bytes. */
  #decoder: TextDecoder | null = null
  #isInsideCharacter = false
  #numBlanksToStrip: number
  #numTokens = 0

  constructor(table: TokenTable, options: DetokenizerOptions) {
    this.#table = table
    this.#skipped = options.skipSpecialTokens ? table.specialIds : NOTHING
    this.#numBlanksToStrip = table.numStrippedBlanks
  }

  /** The text that became final with this token; '' when it is incomplete, special, or not in the vocabulary. */
  push(tokenId: number): string {
    if (this.#skipped.has(tokenId)) return ''
    const whole = this.#table.texts[tokenId]
    if (whole === undefined) return ''
    const separator = this.#numTokens++ === 0 ? '' : this.#table.separator
    if (whole !== null && !this.#isInsideCharacter) return this.#strip(separator + whole)
    this.#decoder ??= new TextDecoder('utf-8', { ignoreBOM: true })
    const text = this.#decoder.decode(this.#table.bytes[tokenId], { stream: true })
    this.#isInsideCharacter = whole === null
    return this.#strip(separator + text)
  }

  /** What is left at the end: U+FFFD for a character that was never completed, else ''. */
  flush(): string {
    if (!this.#isInsideCharacter || this.#decoder === null) return ''
    this.#isInsideCharacter = false
    return this.#strip(this.#decoder.decode())
  }

  #strip(text: string): string {
    let start = 0
    while (this.#numBlanksToStrip > 0 && start < text.length) {
      if (text[start] !== ' ') {
        this.#numBlanksToStrip = 0
        break
      }
      this.#numBlanksToStrip--
      start++
    }
    return start === 0 ? text : text.slice(start)
  }
}

const NOTHING: ReadonlySet<number> = new Set()
