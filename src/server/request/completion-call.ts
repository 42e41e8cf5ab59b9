// A completion request, whole: from its fields to what the engine runs and what the client wants to see.

import type { JsonObject } from '../../core/json.ts'
import type { GenerationRequest } from '../generation/generation.ts'
import type { ServerContext } from '../generation/server-context.ts'
import { COMPLETION_FIELDS } from './completion-fields.ts'
import { type FieldValues, fieldInvalid, readFields } from './fields.ts'
import { buildGenerationRequest, type CallHead, type ReadCall, resultOptions, streamOptions } from './generation-call.ts'
import { checkLogprobs } from './sampling.ts'

// OpenAI's default; nearly every client states a limit of its own.
const DEFAULT_MAX_TOKENS = 16

/** Throws what is wrong with the request, or why its adapter cannot be had. */
export async function readCompletionCall(body: JsonObject, head: CallHead, context: ServerContext): Promise<ReadCall> {
  const values = readFields(COMPLETION_FIELDS, body)
  checkLogprobs('logprobs', values.logprobs, context.config.server.maxLogprobs)
  if (values.max_tokens === 0 && !values.echo) throw fieldInvalid('max_tokens', 'must be at least 1, or 0 with echo: true')
  const adapter = await context.resolver.resolve({
    model: values.model,
    loraPath: values.lora_path,
    source: values.adapter_source,
    adapters: values.adapters,
  })
  const request = buildGenerationRequest(
    {
      responseId: head.responseId(values.request_id),
      arrivedAtMs: head.arrivedAtMs,
      trace: head.trace,
      values,
      adapter,
      prompts: values.prompt,
      promptField: 'prompt',
      addSpecialTokens: values.add_special_tokens,
      numTop: values.logprobs,
      isPromptScored: values.echo,
      isContinuation: values.echo,
      maxTokens: values.max_tokens,
      maxTokensField: 'max_tokens',
      defaultMaxTokens: DEFAULT_MAX_TOKENS,
    },
    context,
  )
  const echoTexts = values.echo ? readEchoTexts(request, values, context) : null
  return {
    request,
    result: resultOptions(values, values.logprobs, echoTexts, context),
    stream: streamOptions(values, context),
  }
}

function readEchoTexts(
  request: GenerationRequest,
  values: FieldValues<typeof COMPLETION_FIELDS>,
  { text }: ServerContext,
): string[] {
  const isWhole = values.truncate_prompt_tokens === null
  return request.prompts.map((prompt) => {
    if (prompt.text !== null && isWhole) return prompt.text
    return text.tokenizer?.decode(prompt.tokenIds, { skipSpecialTokens: values.skip_special_tokens }) ?? ''
  })
}
