// Ids of HTTP requests and their responses.

import type { IncomingMessage } from 'node:http'
import type { FastifyRequest } from 'fastify'
import { isUsableId, randomId } from '../generation/response-id.ts'
import { traceHeaders } from '../generation/trace-headers.ts'
import type { CallHead } from '../request/generation-call.ts'

/** `x-request-id` when it is usable, else a random one. */
export function requestIdOf(request: Pick<IncomingMessage, 'headers'>): string {
  const header = request.headers['x-request-id']
  return isUsableId(header) ? header : randomId()
}

/** Id of the response: header, then the body's `request_id`, then the random one. */
export function callHead(prefix: string, request: FastifyRequest): CallHead {
  const isHeaderUsed = request.headers['x-request-id'] === request.id
  return {
    arrivedAtMs: performance.timeOrigin + performance.now(),
    trace: traceHeaders(request.headers['traceparent'], request.headers['tracestate']),
    responseId: (fieldId) => prefix + (isHeaderUsed || !isUsableId(fieldId) ? request.id : fieldId),
  }
}
