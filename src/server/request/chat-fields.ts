// The body of POST /v1/chat/completions.

import { boolean, custom, fieldInvalid, ignored, integer, list, nullable, object, string, unsupported } from './fields.ts'
import { SAMPLING_FIELDS, TOKENS_AS_IDS_FIELD } from './sampling-fields.ts'

export const CHAT_FIELDS = {
  ...SAMPLING_FIELDS,
  messages: custom<readonly unknown[]>({ type: 'array', items: { type: 'object' }, minItems: 1 }, [], (value, path) => {
    if (!Array.isArray(value)) throw fieldInvalid(path, 'must be a list of messages')
    return value
  }),
  max_completion_tokens: integer(null, { min: 0 }),
  logprobs: boolean(false),
  top_logprobs: integer(0, { min: -1 }),
  add_special_tokens: boolean(false),
  add_generation_prompt: boolean(true),
  continue_final_message: boolean(false),
  chat_template: unsupported('a template in a request is executable text; start the server with --chat-template FILE'),
  chat_template_kwargs: object(),
  documents: nullable(list(object())),
  tools: nullable(list(object(), { minItems: 1 })),
  tool_choice: custom<unknown>({}, null, (value) => value),
  parallel_tool_calls: boolean(true),
  functions: list(object()),
  function_call: custom<unknown>({}, null, (value) => value),
  audio: unsupported('this model writes text'),
  modalities: unsupported('this model writes text', isTextOnly),
  moderation: unsupported('nothing is moderated'),
  web_search_options: unsupported('nothing is searched'),
  // Of OpenAI's own service: hints and labels that change no output here.
  prediction: ignored(),
  prompt_cache_key: ignored(),
  prompt_cache_options: ignored(),
  prompt_cache_retention: ignored(),
  safety_identifier: ignored(),
  verbosity: ignored(),
  reasoning_effort: string(),
  include_reasoning: boolean(true),
  return_tokens_as_token_ids: TOKENS_AS_IDS_FIELD,
}

function isTextOnly(value: unknown): boolean {
  return Array.isArray(value) && value.every((modality) => modality === 'text')
}
