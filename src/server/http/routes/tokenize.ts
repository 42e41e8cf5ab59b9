// POST /tokenize and /detokenize

import type { FastifyInstance } from 'fastify'
import type { JsonObject } from '../../../core/json.ts'
import { LorikeetError } from '../../../errors.ts'
import type { Tokenizer } from '../../../tokenizer/tokenizer.ts'
import { tokenOutOfVocabulary } from '../../generation/prompt.ts'
import { CHAT_FIELDS } from '../chat-fields.ts'
import { readChatMessages } from '../chat-messages.ts'
import type { RouteContext } from '../context.ts'
import { boolean, fieldInvalid, integer, list, nullable, readFields, required, string, unsupported } from '../fields.ts'
import { readJsonBody } from '../json-body.ts'
import { renderChat } from './chat-completions.ts'

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

export function registerTokenize(app: FastifyInstance, context: RouteContext): void {
  app.post('/tokenize', async (request) => {
    const body = readJsonBody(request.body, request.headers['content-type'])
    const { tokens, tokenStrings } = await tokenize(body, context)
    return { count: tokens.length, max_model_len: context.engine.model.maxModelLen, tokens, token_strs: tokenStrings }
  })

  app.post('/detokenize', async (request) => {
    const body = readJsonBody(request.body, request.headers['content-type'])
    const values = readFields(DETOKENIZE_FIELDS, body)
    await context.resolver.resolve({ model: values.model, loraPath: null })
    const tokenizer = requireTokenizer(context)
    const { vocabSize } = context.engine.model
    for (const tokenId of values.tokens) {
      if (tokenId < vocabSize) continue
      throw tokenOutOfVocabulary('tokens', tokenId, vocabSize)
    }
    return { prompt: tokenizer.decode(values.tokens, { skipSpecialTokens: false }) }
  })
}

async function tokenize(body: JsonObject, context: RouteContext) {
  const values = readFields(TOKENIZE_FIELDS, body)
  if ((values.prompt === null) === (values.messages === null)) throw fieldInvalid('prompt', 'or messages is required, not both')
  await context.resolver.resolve({ model: values.model, loraPath: null })
  const tokenizer = requireTokenizer(context)
  const text =
    values.messages === null ? (values.prompt as string) : renderChat(readChatMessages(values.messages), values, context.text)
  if (text.length > MAX_CHARS) throw fieldInvalid('prompt', `must have at most ${MAX_CHARS} characters`)
  const tokens = tokenizer.encode(text, values.add_special_tokens ?? values.messages === null)
  const tokenStrings = values.return_token_strs ? tokens.map((tokenId) => tokenizer.tokenString(tokenId)) : null
  return { tokens, tokenStrings }
}

function requireTokenizer({ text }: RouteContext): Tokenizer {
  if (text.tokenizer === null) throw new LorikeetError('NO_TOKENIZER')
  return text.tokenizer
}
