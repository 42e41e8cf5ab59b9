// POST /v1/completions

import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { JsonObject } from '../../../core/json.ts'
import type { GenerationRequest } from '../../generation/generation.ts'
import { COMPLETION_FIELDS } from '../completion-fields.ts'
import { CompletionFormat } from '../completion-format.ts'
import type { RouteContext } from '../context.ts'
import { type FieldValues, fieldInvalid, readFields } from '../fields.ts'
import { buildGenerationRequest, resultOptions, streamOptions } from '../generation-call.ts'
import { readJsonBody } from '../json-body.ts'
import { replyWithGeneration } from '../reply.ts'
import { responseId } from '../request-id.ts'
import type { Call } from '../response-format.ts'
import { checkLogprobs } from '../sampling.ts'

// OpenAI's default; nearly every client states a limit of its own.
const DEFAULT_MAX_TOKENS = 16

export function registerCompletions(app: FastifyInstance, context: RouteContext): void {
  app.post('/v1/completions', async (request, reply) => {
    const arrivedAtMs = performance.timeOrigin + performance.now()
    context.generations.assertReady()
    const body = readJsonBody(request.body, request.headers['content-type'])
    return replyWithGeneration(reply, await readCall(body, request, arrivedAtMs, context), context)
  })
}

async function readCall(body: JsonObject, request: FastifyRequest, arrivedAtMs: number, context: RouteContext): Promise<Call> {
  const values = readFields(COMPLETION_FIELDS, body)
  checkLogprobs('logprobs', values.logprobs, context.config.server.maxLogprobs)
  if (values.max_tokens === 0 && !values.echo) throw fieldInvalid('max_tokens', 'must be at least 1, or 0 with echo: true')
  const adapter = await context.resolver.resolve({ model: values.model, loraPath: values.lora_path })
  const generation = buildGenerationRequest(
    {
      responseId: responseId('cmpl-', request, values.request_id),
      arrivedAtMs,
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
  const echoTexts = values.echo ? readEchoTexts(generation, values, context) : null
  const options = resultOptions(values, values.logprobs, echoTexts, context)
  return {
    request: generation,
    format: new CompletionFormat(options, generation.prompts, context.text.tokenizer),
    stream: streamOptions(values, context),
  }
}

function readEchoTexts(
  request: GenerationRequest,
  values: FieldValues<typeof COMPLETION_FIELDS>,
  { text }: RouteContext,
): string[] {
  const isWhole = values.truncate_prompt_tokens === null
  return request.prompts.map((prompt) => {
    if (prompt.text !== null && isWhole) return prompt.text
    return text.tokenizer?.decode(prompt.tokenIds, { skipSpecialTokens: values.skip_special_tokens }) ?? ''
  })
}
