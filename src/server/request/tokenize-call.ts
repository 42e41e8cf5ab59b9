// Text to token ids and back, for clients.

import type { JsonObject } from '../../core/json.ts'
import { LorikeetError } from '../../errors.ts'
import type { Tokenizer } from '../../tokenizer/tokenizer.ts'
import { tokenOutOfVocabulary } from '../generation/prompt.ts'
import type { ServerContext } from '../generation/server-context.ts'
import { renderChat } from './chat-call.ts'
import { CHAT_FIELDS } from './chat-fields.ts'
import { readChatMessages } from './chat-messages.ts'
import { boolean, fieldInvalid, integer, list, nullable, readFields, required, string, unsupported } from './fields.ts'

// About a second of work for the slowest tokenizers; it runs on the thread that serves every stream.
const MAX_CHARS = 262_144

export const TOKENIZE_FIELDS = {
  model: string(),
  prompt: string(),
  messages: nullable(CHAT_FIELDS.messages),
  // True for a prompt and false for messages, whose template writes its own.
  add_special_tokens: nullable(boolean(true)),
  return_token_strs: boolean(false),
  add_generation_prompt: boolean(true),
  continue_final_message: boolean(false),
  documents: CHAT_FIELDS.documents,
  chat_template_kwargs: CHAT_FIELDS.chat_template_kwargs,
  chat_template: CHAT_FIELDS.chat_template,
  tools: unsupported('calls of tools are not built yet'),
}

export const DETOKENIZE_FIELDS = {
  model: string(),
  tokens: required(nullable(list(integer(null, { min: 0 })))),
}

export interface Tokens {
  readonly tokenIds: readonly number[]
  /** As the vocabulary writes them; null when not asked for. */
  readonly tokenStrings: readonly string[] | null
}

/** Throws what is wrong with the request, or NO_TOKENIZER. */
export async function tokenize(body: JsonObject, context: ServerContext): Promise<Tokens> {
  const values = readFields(TOKENIZE_FIELDS, body)
  if ((values.prompt === null) === (values.messages === null)) throw fieldInvalid('prompt', 'or messages is required, not both')
  await context.resolver.resolve({ model: values.model, loraPath: null })
  const text =
    values.messages === null ? (values.prompt as string) : renderChat(readChatMessages(values.messages), values, context.text)
  const { tokenizer, tokenIds } = encodeText(text, values.add_special_tokens ?? values.messages === null, 'prompt', context)
  const tokenStrings = values.return_token_strs ? tokenIds.map((tokenId) => tokenizer.tokenString(tokenId)) : null
  return { tokenIds, tokenStrings }
}

/** The text of `tokens`. Throws what is wrong with the request, or NO_TOKENIZER. */
export async function detokenize(body: JsonObject, context: ServerContext): Promise<string> {
  const values = readFields(DETOKENIZE_FIELDS, body)
  await context.resolver.resolve({ model: values.model, loraPath: null })
  const tokenizer = requireTokenizer(context)
  const { vocabSize } = context.engine.model
  for (const tokenId of values.tokens) {
    if (tokenId < vocabSize) continue
    throw tokenOutOfVocabulary('tokens', tokenId, vocabSize)
  }
  return tokenizer.decode(values.tokens, { skipSpecialTokens: false })
}

/** Throws NO_TOKENIZER, or FIELD_INVALID naming `field` for a text too long. */
export function encodeText(
  text: string,
  addSpecialTokens: boolean,
  field: string,
  context: ServerContext,
): { tokenizer: Tokenizer; tokenIds: readonly number[] } {
  const tokenizer = requireTokenizer(context)
  if (text.length > MAX_CHARS) throw fieldInvalid(field, `must have at most ${MAX_CHARS} characters`)
  return { tokenizer, tokenIds: tokenizer.encode(text, addSpecialTokens) }
}

function requireTokenizer({ text }: ServerContext): Tokenizer {
  if (text.tokenizer === null) throw new LorikeetError('NO_TOKENIZER')
  return text.tokenizer
}
