// `messages` of a chat request.

import { isJsonObject, type JsonObject } from '../../core/json.ts'
import type { ChatMessage, ChatTextPart } from '../../tokenizer/chat-template.ts'
import { fieldInvalid, fieldUnsupported } from './fields.ts'

const ROLES: ReadonlySet<unknown> = new Set(['system', 'developer', 'user', 'assistant', 'tool', 'function'])

/** Throws FIELD_INVALID or FIELD_UNSUPPORTED with the path of the part at fault. */
export function readChatMessages(messages: readonly unknown[]): ChatMessage[] {
  if (messages.length === 0) throw fieldInvalid('messages', 'must not be empty')
  return messages.map((message, index) => readMessage(message, `messages[${index}]`))
}

function readMessage(message: unknown, path: string): ChatMessage {
  if (!isJsonObject(message)) throw fieldInvalid(path, 'must be an object')
  const { role, content, ...extra } = message
  if (!ROLES.has(role)) throw fieldInvalid(`${path}.role`, `must be one of ${[...ROLES].join(', ')}`)
  return { role: role as string, content: readContent(content, `${path}.content`), extra: withoutNulls(extra) }
}

function readContent(content: unknown, path: string): string | ChatTextPart[] {
  if (content === null || content === undefined) return ''
  if (typeof content === 'string') return content
  if (!Array.isArray(content)) throw fieldInvalid(path, 'must be a string or a list of parts')
  return content.map((part: unknown, index) => readPart(part, `${path}[${index}]`))
}

function readPart(part: unknown, path: string): ChatTextPart {
  if (!isJsonObject(part)) throw fieldInvalid(path, 'must be an object')
  if (part['type'] !== 'text') {
    if (typeof part['type'] !== 'string') throw fieldInvalid(`${path}.type`, 'must be text')
    throw fieldUnsupported(`${path}.type`, `${part['type']} parts need a multimodal model, and this one reads text`)
  }
  if (typeof part['text'] !== 'string') throw fieldInvalid(`${path}.text`, 'must be a string')
  return { type: 'text', text: part['text'] }
}

/** Templates test members for being defined, and clients send nulls for absent. */
function withoutNulls(object: JsonObject): JsonObject {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== null))
}
