// POST /v1/completions

import type { FastifyInstance, FastifyReply } from 'fastify'
import type { JsonObject } from '../../../core/json.ts'
import type { ServerContext } from '../../generation/server-context.ts'
import { readCompletionCall } from '../../request/completion-call.ts'
import type { CallHead } from '../../request/generation-call.ts'
import { CompletionFormat } from '../completion-format.ts'
import { readJsonBody } from '../json-body.ts'
import { replyWithGeneration } from '../reply.ts'
import { callHead } from '../request-id.ts'

/** Of the ids of its answers. */
export const COMPLETION_PREFIX = 'cmpl-'

export function registerCompletions(app: FastifyInstance, context: ServerContext): void {
  app.post('/v1/completions', async (request, reply) => {
    const head = callHead(COMPLETION_PREFIX, request)
    context.generations.assertReady()
    return replyCompletion(reply, readJsonBody(request.body, request.headers['content-type']), head, context)
  })
}

export async function replyCompletion(
  reply: FastifyReply,
  body: JsonObject,
  head: CallHead,
  context: ServerContext,
): Promise<FastifyReply> {
  const call = await readCompletionCall(body, head, context)
  const format = new CompletionFormat(call.result, call.request.prompts, context.text.tokenizer)
  return replyWithGeneration(reply, { request: call.request, format, stream: call.stream }, context)
}
