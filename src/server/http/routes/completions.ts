// POST /v1/completions

import type { FastifyInstance } from 'fastify'
import type { ServerContext } from '../../generation/server-context.ts'
import { readCompletionCall } from '../../request/completion-call.ts'
import { CompletionFormat } from '../completion-format.ts'
import { readJsonBody } from '../json-body.ts'
import { replyWithGeneration } from '../reply.ts'
import { callHead } from '../request-id.ts'

export function registerCompletions(app: FastifyInstance, context: ServerContext): void {
  app.post('/v1/completions', async (request, reply) => {
    const head = callHead('cmpl-', request)
    context.generations.assertReady()
    const body = readJsonBody(request.body, request.headers['content-type'])
    const call = await readCompletionCall(body, head, context)
    const format = new CompletionFormat(call.result, call.request.prompts, context.text.tokenizer)
    return replyWithGeneration(reply, { request: call.request, format, stream: call.stream }, context)
  })
}
