// POST /v1/chat/completions

import type { FastifyInstance } from 'fastify'
import type { ServerContext } from '../../generation/server-context.ts'
import { readChatCall } from '../../request/chat-call.ts'
import { ChatFormat } from '../chat-format.ts'
import { readJsonBody } from '../json-body.ts'
import { replyWithGeneration } from '../reply.ts'
import { callHead } from '../request-id.ts'

export function registerChatCompletions(app: FastifyInstance, context: ServerContext): void {
  app.post('/v1/chat/completions', async (request, reply) => {
    const head = callHead('chatcmpl-', request)
    context.generations.assertReady()
    const body = readJsonBody(request.body, request.headers['content-type'])
    const call = await readChatCall(body, head, context)
    const format = new ChatFormat(call.result, call.request.prompts, call.role)
    return replyWithGeneration(reply, { request: call.request, format, stream: call.stream }, context)
  })
}
