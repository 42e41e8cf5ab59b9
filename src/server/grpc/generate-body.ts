// lorikeet.v1 requests as the bodies that REST takes, so that one table of fields reads both and a field has one meaning.

import { isJsonObject, type JsonObject } from '../../core/json.ts'
import { LorikeetError } from '../../errors.ts'
import { fieldInvalid } from '../request/fields.ts'
import type {
  Chat,
  ChatMessage,
  Constraint,
  GenerateRequest,
  Output,
  TokenizeRequest,
} from './generated/lorikeet/v1/inference.ts'

export interface GenerateBody {
  readonly isChat: boolean
  readonly body: JsonObject
}

/** Throws FIELD_INVALID for what has no place in a body; the rest is checked with the body itself. */
export function generateBody(request: GenerateRequest, isStream: boolean): GenerateBody {
  const { isChat, body } = inputBody(request)
  const { sampling, stopping, output, constraint } = request
  return {
    isChat,
    body: {
      ...body,
      ...withoutAbsent({
        request_id: text(request.requestId),
        model: text(request.model),
        lora_path: text(request.adapter),
        cache_salt: text(request.cacheSalt),
        priority: request.priority === 0 ? undefined : request.priority,
        truncate_prompt_tokens: request.truncatePromptTokens,
        add_special_tokens: request.addSpecialTokens,
        temperature: sampling?.temperature,
        top_p: sampling?.topP,
        top_k: sampling?.topK,
        min_p: sampling?.minP,
        // An int64 beyond 2^53 becomes a number that the field table refuses.
        seed: sampling?.seed === undefined ? undefined : Number(sampling.seed),
        n: sampling?.n,
        repetition_penalty: sampling?.repetitionPenalty,
        presence_penalty: number(sampling?.presencePenalty),
        frequency_penalty: number(sampling?.frequencyPenalty),
        logit_bias: filled(sampling?.logitBias),
        allowed_token_ids: list(sampling?.allowedTokenIds),
        bad_words: list(sampling?.badWords),
        [isChat ? 'max_completion_tokens' : 'max_tokens']: stopping?.maxTokens,
        min_tokens: number(stopping?.minTokens),
        stop: list(stopping?.stop),
        stop_token_ids: list(stopping?.stopTokenIds),
        include_stop_str_in_output: flag(stopping?.includeStopStrInOutput),
        ignore_eos: flag(stopping?.ignoreEos),
        structured_outputs: constraint === undefined ? undefined : structuredOutputs(constraint),
        ...outputFields(output, isChat),
      }),
      stream: isStream,
      stream_options: undefined,
    },
  }
}

function inputBody({ input }: GenerateRequest): GenerateBody {
  switch (input?.$case) {
    case 'text':
      return { isChat: false, body: { prompt: input.text } }
    case 'tokenIds':
      return { isChat: false, body: { prompt: input.tokenIds.ids } }
    case 'chat':
      return { isChat: true, body: chatBody(input.chat) }
    case 'json':
      return jsonBody(input.json)
    default:
      throw fieldInvalid('input', 'is required: text, token_ids, chat or json')
  }
}

function jsonBody(source: string): GenerateBody {
  const body = parseJson(source, 'json')
  if (!isJsonObject(body)) throw fieldInvalid('json', 'must be an object')
  const { prompt } = body
  // Events name choices, not prompts.
  const isMany = Array.isArray(prompt) && prompt.length > 1 && typeof prompt[0] !== 'number'
  if (isMany) throw fieldInvalid('json.prompt', 'must be one prompt: send a call for each')
  return { isChat: 'messages' in body, body }
}

function outputFields(output: Output | undefined, isChat: boolean): JsonObject {
  const numTop = output?.logprobs
  const isTextless = output?.text === false
  return {
    return_token_ids: output?.tokenIds || isTextless ? true : undefined,
    logprobs: isChat && numTop !== undefined ? true : numTop,
    top_logprobs: isChat ? numTop : undefined,
    prompt_logprobs: output?.promptLogprobs,
    echo: flag(output?.echo),
    skip_special_tokens: output?.skipSpecialTokens,
    stream_interval: output?.streamInterval,
  }
}

function structuredOutputs({ kind }: Constraint): JsonObject | undefined {
  switch (kind?.$case) {
    case 'jsonSchema':
      return { json: parseJson(kind.jsonSchema, 'constraint.json_schema') }
    case 'regex':
      return { regex: kind.regex }
    case 'grammar':
      return { grammar: kind.grammar }
    case 'choice':
      return { choice: kind.choice.texts }
    case 'jsonObject':
      return kind.jsonObject ? { json_object: true } : undefined
    default:
      return undefined
  }
}

function chatBody(chat: Chat): JsonObject {
  const { toolChoice: choice } = chat
  const isWord = choice === 'none' || choice === 'auto' || choice === 'required'
  return withoutAbsent({
    messages: chat.messages.map(messageBody),
    tools: list(
      chat.tools.map(({ name, description, parametersJson }) => ({
        type: 'function',
        function: withoutAbsent({
          name,
          description: text(description),
          parameters: parametersJson === '' ? undefined : parseJson(parametersJson, 'chat.tools.parameters_json'),
        }),
      })),
    ),
    tool_choice: choice === '' ? undefined : isWord ? choice : { type: 'function', function: { name: choice } },
    add_generation_prompt: chat.addGenerationPrompt,
    continue_final_message: flag(chat.continueFinalMessage),
    chat_template_kwargs:
      chat.chatTemplateKwargsJson === '' ? undefined : parseJson(chat.chatTemplateKwargsJson, 'chat.chat_template_kwargs_json'),
  })
}

function messageBody(message: ChatMessage): JsonObject {
  return withoutAbsent({
    role: message.role,
    content: message.content,
    name: text(message.name),
    tool_call_id: text(message.toolCallId),
    tool_calls: list(message.toolCalls.map(({ id, name, arguments: args }) => toolCallBody(id, name, args))),
  })
}

function toolCallBody(id: string, name: string, args: string): JsonObject {
  return { id, type: 'function', function: { name, arguments: args } }
}

export function tokenizeBody({ model, input, addSpecialTokens, returnTokenStrings }: TokenizeRequest): JsonObject {
  const chat = input?.$case === 'chat' ? chatBody(input.chat) : {}
  return {
    ...chat,
    model: text(model),
    prompt: input?.$case === 'text' ? input.text : undefined,
    add_special_tokens: addSpecialTokens,
    return_token_strs: returnTokenStrings,
  }
}

function parseJson(source: string, field: string): unknown {
  try {
    return JSON.parse(source)
  } catch (error) {
    const reason = error instanceof Error ? error.message : 'cannot be parsed'
    throw new LorikeetError('FIELD_INVALID', { field, reason: `is not JSON: ${reason}` }, { cause: error })
  }
}

// Proto3 cannot tell a plain scalar at zero from an absent one; where zero is the default both read as absent.

function text(value: string): string | undefined {
  return value === '' ? undefined : value
}

function number(value: number | undefined): number | undefined {
  return value === 0 ? undefined : value
}

function flag(value: boolean | undefined): boolean | undefined {
  return value === false ? undefined : value
}

function list<T>(value: readonly T[] | undefined): readonly T[] | undefined {
  return value === undefined || value.length === 0 ? undefined : value
}

function filled(value: object | undefined): object | undefined {
  return value === undefined || Object.keys(value).length === 0 ? undefined : value
}

/** Members that are absent must not hide those of a JSON body. */
function withoutAbsent(object: JsonObject): JsonObject {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined))
}
