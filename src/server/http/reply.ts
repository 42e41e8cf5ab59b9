// Runs a generation and answers with it, whole or as a stream. A client that leaves ends it in the engine.

import type { ServerResponse } from 'node:http'
import type { FastifyReply } from 'fastify'
import type { Generation, GenerationRequest } from '../generation/generation.ts'
import type { ServerContext } from '../generation/server-context.ts'
import { GenerationStream } from './generation-stream.ts'
import { type Call, responseHead, type StreamedAnswer, usageBody } from './response-format.ts'

/** Answers the call. What fails before the first token rejects, so that it still gets a status of its own. */
export async function replyWithGeneration(reply: FastifyReply, call: Call, context: ServerContext): Promise<FastifyReply> {
  // The client may have left while an adapter was loading.
  if (reply.raw.destroyed) return reply.hijack()
  if (call.stream !== null) {
    return runStream(reply, call.request, new GenerationStream(reply, call, call.stream, context), context)
  }
  const generation = await runToEnd(reply, call.request, context)
  if (generation === null) return reply.hijack()
  const body = {
    ...responseHead(call, call.format.unaryObject),
    ...call.format.unary(generation),
    service_tier: null,
    system_fingerprint: fingerprint(context),
    usage: usageBody(generation.usage),
    kv_transfer_params: null,
  }
  return reply.header('content-type', 'application/json; charset=utf-8').send(JSON.stringify(body))
}

/** The finished generation; null when the client left first. Rejects with why it failed. */
export function runToEnd(reply: FastifyReply, request: GenerationRequest, context: ServerContext): Promise<Generation | null> {
  return new Promise((resolve, reject) => {
    const generation = context.generations.start(request, {
      onOutput: () => {},
      // Deferred: `start` may finish before it has returned.
      onFinished: () => queueMicrotask(() => resolve(generation)),
      onFailed: reject,
    })
    nameTrace(reply, generation)
    onClientGone(reply.raw, () => {
      generation.abort()
      resolve(null)
    })
  })
}

/** Resolves when the connection has closed. Rejects with what failed before anything was sent. */
export function runStream(
  reply: FastifyReply,
  request: GenerationRequest,
  stream: StreamedAnswer,
  context: ServerContext,
): Promise<FastifyReply> {
  return new Promise((resolve, reject) => {
    const generation = context.generations.start(request, {
      onOutput: (choice) => stream.onOutput(choice),
      onFinished: () => stream.onFinished(),
      onFailed: (error) => {
        if (stream.isOpen) stream.fail(error)
        else reject(error)
      },
    })
    nameTrace(reply, generation)
    stream.attach(generation)
    reply.raw.once('close', () => resolve(reply))
    onClientGone(reply.raw, () => {
      generation.abort()
      if (!stream.isOpen) reply.hijack()
    })
  })
}

/** Before anything is sent: outputs come in later turns than `start`. */
function nameTrace(reply: FastifyReply, { span }: Generation): void {
  if (span !== null) reply.header('traceparent', span.traceparent)
}

function onClientGone(response: ServerResponse, listener: () => void): void {
  response.once('close', () => {
    if (!response.writableFinished) listener()
  })
}

function fingerprint({ version, engine }: ServerContext): string {
  return `lorikeet-${version}-${engine.model.backend}-${engine.model.dtype}`
}
