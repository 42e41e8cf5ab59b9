// POST /v1/chat/completions

import type { FastifyInstance, FastifyReply } from 'fastify'
import type { JsonObject } from '../../../core/json.ts'
import type { ServerContext } from '../../generation/server-context.ts'
import { readChatCall } from '../../request/chat-call.ts'
import type { CallHead } from '../../request/generation-call.ts'
import { ChatFormat } from '../chat-format.ts'
import { readJsonBody } from '../json-body.ts'
import { replyWithGeneration } from '../reply.ts'
import { callHead } from '../request-id.ts'

/** Of the ids of its answers. */
export const CHAT_PREFIX = 'chatcmpl-'

export function registerChatCompletions(app: FastifyInstance, context: ServerContext): void {
  app.post('/v1/chat/completions', async (request, reply) => {
    const head = callHead(CHAT_PREFIX, request)
    context.generations.assertReady()
    return replyChat(reply, readJsonBody(request.body, request.headers['content-type']), head, context)
  })
}

export async function replyChat(
  reply: FastifyReply,
  body: JsonObject,
  head: CallHead,
  context: ServerContext,
): Promise<FastifyReply> {
  const call = await readChatCall(body, head, context)
  const format = new ChatFormat(call.result, call.request.prompts, call.role)
  return replyWithGeneration(reply, { request: call.request, format, stream: call.stream }, context)
}
