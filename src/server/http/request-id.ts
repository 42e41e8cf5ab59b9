// Ids of requests: the client's own, so that logs of both sides can be joined, or random ones.

import { randomBytes } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import type { FastifyRequest } from 'fastify'

// Printable ASCII without blanks; the value comes back in a header and goes to the log.
const SAFE_ID = /^[\x21-\x7e]{1,256}$/

/** `x-request-id` when it is usable, else 32 hexadecimal digits. */
export function requestIdOf(request: Pick<IncomingMessage, 'headers'>): string {
  const header = request.headers['x-request-id']
  return typeof header === 'string' && SAFE_ID.test(header) ? header : randomBytes(16).toString('hex')
}

/** Id of the response: header, then the body's `request_id`, then the random one. */
export function responseId(prefix: string, request: FastifyRequest, bodyId: string | null): string {
  const isHeaderUsed = request.headers['x-request-id'] === request.id
  return prefix + (isHeaderUsed || bodyId === null || !SAFE_ID.test(bodyId) ? request.id : bodyId)
}
