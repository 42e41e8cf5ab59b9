// LoRAX's /tokenize: token ids with where each stands in the text.

import type { JsonObject } from '../../core/json.ts'
import type { Tokenizer } from '../../tokenizer/tokenizer.ts'
import { countCodePoints } from '../generation/choice.ts'
import type { ServerContext } from '../generation/server-context.ts'
import { boolean, readFields, required, string } from './fields.ts'
import { encodeText } from './tokenize-call.ts'

export const LORAX_TOKENIZE_FIELDS = {
  inputs: required(string()),
  add_special_tokens: boolean(true),
}

export interface LocatedToken {
  readonly id: number
  /** As the vocabulary writes it. */
  readonly text: string
  /** Characters as Python counts them; equal for a token that the tokenizer added. */
  readonly start: number
  readonly stop: number
}

/** Throws what is wrong with the request, or NO_TOKENIZER. */
export function tokenizeInputs(body: JsonObject, context: ServerContext): LocatedToken[] {
  const { inputs, add_special_tokens: addSpecialTokens } = readFields(LORAX_TOKENIZE_FIELDS, body)
  const { tokenizer, tokenIds } = encodeText(inputs, addSpecialTokens, 'inputs', context)
  return locate(tokenIds, inputs, tokenizer)
}

/** Tokenizers do not say where tokens come from, so each is looked for where the one before it ended. */
function locate(tokenIds: readonly number[], text: string, tokenizer: Tokenizer): LocatedToken[] {
  const located: LocatedToken[] = []
  // In UTF-16 units and in code points.
  let at = 0
  let numCharacters = 0
  for (let i = 0; i < tokenIds.length; ) {
    const { numTokens, piece } = readPiece(tokenIds, i, tokenizer)
    const found = matchAt(text, at, piece)
    const stop = numCharacters + countCodePoints(found)
    const isAdded = found === ''
    for (const id of tokenIds.slice(i, i + numTokens)) {
      located.push({ id, text: tokenizer.tokenString(id), start: isAdded ? 0 : numCharacters, stop: isAdded ? 0 : stop })
    }
    at += found.length
    numCharacters = stop
    i += numTokens
  }
  return located
}

/** The text of one token, or of several that make one character together. */
function readPiece(tokenIds: readonly number[], first: number, tokenizer: Tokenizer): { numTokens: number; piece: string } {
  const { texts } = tokenizer.table
  const whole = texts[tokenIds[first] as number]
  if (whole !== null) return { numTokens: 1, piece: whole ?? '' }
  const bytes: number[] = []
  for (let i = first; i < tokenIds.length; i++) {
    bytes.push(...tokenizer.tokenBytes(tokenIds[i] as number))
    const piece = Buffer.from(bytes).toString('utf8')
    if (!piece.includes('\ufffd')) return { numTokens: i + 1 - first, piece }
  }
  return { numTokens: 1, piece: '' }
}

/** What of `piece` stands at `index`: SentencePiece puts a blank before the first word that the text does not have. */
function matchAt(text: string, index: number, piece: string): string {
  if (text.startsWith(piece, index)) return piece
  const withoutBlank = piece.trimStart()
  return withoutBlank !== piece && text.startsWith(withoutBlank, index) ? withoutBlank : ''
}
