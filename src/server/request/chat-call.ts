// A chat request, whole: from its fields to what the engine runs and what the client wants to see.

import type { JsonObject } from '../../core/json.ts'
import { LorikeetError } from '../../errors.ts'
import { type ChatMessage, flattenContent } from '../../tokenizer/chat-template.ts'
import type { TextModel } from '../../tokenizer/text-model.ts'
import type { ServerContext } from '../generation/server-context.ts'
import { CHAT_FIELDS } from './chat-fields.ts'
import { readChatMessages } from './chat-messages.ts'
import { type FieldValues, fieldInvalid, fieldUnsupported, readFields } from './fields.ts'
import { buildGenerationRequest, type CallHead, type ReadCall, resultOptions, streamOptions } from './generation-call.ts'
import { checkLogprobs } from './sampling.ts'

type ChatValues = FieldValues<typeof CHAT_FIELDS>

export interface ReadChatCall extends ReadCall {
  /** Of the message that is generated. */
  readonly role: string
}

/** Throws what is wrong with the request, or why its adapter cannot be had. */
export async function readChatCall(body: JsonObject, head: CallHead, context: ServerContext): Promise<ReadChatCall> {
  const values = readFields(CHAT_FIELDS, body)
  const messages = readChatMessages(values.messages)
  checkTools(values)
  const numTop = readTopLogprobs(values, context.config.server.maxLogprobs)
  const { maxTokens, field } = readLimit(values)
  const adapter = await context.resolver.resolve({
    model: values.model,
    loraPath: values.lora_path,
    source: values.adapter_source,
    adapters: values.adapters,
  })
  const role = values.add_generation_prompt ? 'assistant' : (messages.at(-1) as ChatMessage).role
  const request = buildGenerationRequest(
    {
      responseId: head.responseId(values.request_id),
      arrivedAtMs: head.arrivedAtMs,
      trace: head.trace,
      values,
      adapter,
      prompts: [renderChat(messages, values, context.text)],
      promptField: 'messages',
      addSpecialTokens: values.add_special_tokens,
      numTop,
      isPromptScored: false,
      isContinuation: values.continue_final_message || values.echo,
      maxTokens,
      maxTokensField: field,
      defaultMaxTokens: context.text.generationDefaults.maxNewTokens,
    },
    context,
  )
  return {
    request,
    result: resultOptions(values, numTop, values.echo ? [echoText(messages, role)] : null, context),
    stream: streamOptions(values, context),
    role,
  }
}

interface RenderValues {
  readonly add_generation_prompt: boolean
  readonly continue_final_message: boolean
  readonly documents: readonly unknown[] | null
  readonly chat_template_kwargs: JsonObject | null
  readonly reasoning_effort?: string | null
}

/** The prompt text of a conversation. Throws NO_TOKENIZER, NO_CHAT_TEMPLATE or what the template refuses. */
export function renderChat(messages: readonly ChatMessage[], values: RenderValues, text: TextModel): string {
  if (values.continue_final_message && values.add_generation_prompt) {
    throw fieldInvalid('continue_final_message', 'needs add_generation_prompt: false')
  }
  if (text.tokenizer === null) throw new LorikeetError('NO_TOKENIZER', {}, { field: 'messages' })
  if (text.chatTemplate === null) throw new LorikeetError('NO_CHAT_TEMPLATE', {}, { field: 'messages' })
  const effort = values.reasoning_effort ?? null
  return text.chatTemplate.render(messages, {
    addGenerationPrompt: values.add_generation_prompt,
    continueFinalMessage: values.continue_final_message,
    documents: values.documents,
    variables: { ...(effort === null ? {} : { reasoning_effort: effort }), ...values.chat_template_kwargs },
  })
}

function readTopLogprobs(values: ChatValues, maxLogprobs: number): number | null {
  if (!values.logprobs) {
    if (values.top_logprobs !== 0) throw fieldInvalid('top_logprobs', 'needs logprobs: true')
    return null
  }
  checkLogprobs('top_logprobs', values.top_logprobs, maxLogprobs)
  return values.top_logprobs
}

function readLimit(values: ChatValues): { maxTokens: number | null; field: string } {
  const field = values.max_completion_tokens === null ? 'max_tokens' : 'max_completion_tokens'
  const maxTokens = values[field]
  if (maxTokens === 0) throw fieldInvalid(field, 'must be an integer of at least 1')
  return { maxTokens, field }
}

/** Tools that the model may not call need no parser; everything else about tools is not built. */
function checkTools({ tools, tool_choice: choice, functions, function_call: functionCall }: ChatValues): void {
  if (functions.length > 0 && functionCall !== 'none') throw fieldUnsupported('functions', 'send them as tools')
  if (tools === null) {
    if (choice !== null && choice !== 'none') throw fieldInvalid('tool_choice', 'needs tools')
  } else if (choice !== 'none') {
    throw fieldUnsupported('tools', 'calls of tools are not built yet; send tool_choice "none" to have them ignored')
  }
}

function echoText(messages: readonly ChatMessage[], role: string): string {
  const last = messages.at(-1)
  return last?.role === role ? flattenContent(last.content) : ''
}
