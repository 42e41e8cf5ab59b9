// Reads one LoRAX request and answers it.

import type { FastifyReply, FastifyRequest } from 'fastify'
import type { JsonObject } from '../../../core/json.ts'
import { LorikeetError } from '../../../errors.ts'
import type { ServerContext } from '../../generation/server-context.ts'
import { type ReadLoraxCall, readLoraxCall } from '../../request/lorax-call.ts'
import { runStream, runToEnd } from '../reply.ts'
import { callHead } from '../request-id.ts'
import { loraxAnswer } from './lorax-answer.ts'
import { INCOMPLETE } from './lorax-error.ts'
import { closingHeaders, openingHeaders } from './lorax-headers.ts'
import { LoraxStream } from './lorax-stream.ts'

// LoRAX has no ids of its own; this one is for logs.
const ID_PREFIX = 'gen-'

export interface LoraxRoute {
  /** Null leaves it to the body. */
  readonly isStream: boolean | null
  /** The whole answer is an array of one. */
  readonly isArray: boolean
}

/** Throws or rejects with what is wrong with the request, or why it failed before anything was sent. */
export async function replyLorax(
  request: FastifyRequest,
  reply: FastifyReply,
  body: JsonObject,
  { isStream, isArray }: LoraxRoute,
  context: ServerContext,
): Promise<FastifyReply> {
  const call = await readLoraxCall(body, isStream, callHead(ID_PREFIX, request), context)
  // The client may have left while an adapter was loading.
  if (reply.raw.destroyed) return reply.hijack()
  const { tokenizer } = context.text
  if (tokenizer === null) throw new LorikeetError('NO_TOKENIZER', {}, { field: 'inputs' })
  reply.headers(openingHeaders(call, context))
  if (!call.isStream) return replyWhole(reply, call, isArray, context)
  const { responseId } = call.request
  const stream = new LoraxStream(reply, call, tokenizer, (error) => {
    context.logger.error({ requestId: responseId, err: error }, 'stream failed')
  })
  return runStream(reply, call.request, stream, context)
}

async function replyWhole(
  reply: FastifyReply,
  { request, result }: ReadLoraxCall,
  isArray: boolean,
  context: ServerContext,
): Promise<FastifyReply> {
  const { tokenizer } = context.text
  const validationMs = performance.timeOrigin + performance.now() - request.arrivedAtMs
  const generation = await runToEnd(reply, request, context)
  if (generation === null || tokenizer === null) return reply.hijack()
  const answer = loraxAnswer(generation, result, tokenizer)
  reply.headers(closingHeaders(generation, validationMs)).type('application/json; charset=utf-8')
  if (answer === null) return reply.code(INCOMPLETE.status).send(JSON.stringify(INCOMPLETE.body))
  return reply.send(JSON.stringify(isArray ? [answer] : answer))
}
