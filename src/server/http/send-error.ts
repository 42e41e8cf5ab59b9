// Errors as answers, whatever shape a dialect gives them.

import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import { asLorikeetError, LorikeetError } from '../../errors.ts'
import type { ServerContext } from '../generation/server-context.ts'
import { errorHeaders } from './error-body.ts'
import { discardBody } from './refused-body.ts'

export interface ShapedError {
  readonly status: number
  readonly body: object
}

export type SendError = (thrown: unknown, request: FastifyRequest, reply: FastifyReply) => Promise<void>

/** An error handler of fastify. What was not foreseen goes to the log. */
export function errorSender(context: ServerContext, shape: (error: LorikeetError) => ShapedError): SendError {
  const { bodyLimitBytes } = context.config.server
  return async (thrown, request, reply) => {
    const error = codedError(thrown, bodyLimitBytes)
    if (error.code === 'BODY_TOO_LARGE') await discardBody(request.raw, bodyLimitBytes)
    if (error.httpStatus >= 500 && error.httpStatus !== 503) {
      context.logger.error({ requestId: request.id, err: error }, 'request failed')
    }
    const { status, body } = shape(error)
    await reply
      .code(status)
      .header('x-request-id', request.id)
      .headers(errorHeaders(error))
      .type('application/json; charset=utf-8')
      .send(JSON.stringify(body))
  }
}

/** Answers by `send` what goes wrong with `answer`, on a route where only the body says in which dialect errors are told. */
export async function answerOr(
  send: SendError,
  request: FastifyRequest,
  reply: FastifyReply,
  answer: () => unknown,
): Promise<unknown> {
  try {
    return await answer()
  } catch (thrown) {
    await send(thrown, request, reply)
    return reply
  }
}

/** Fastify's own errors in our terms. */
function codedError(thrown: unknown, limitBytes: number): LorikeetError {
  if (thrown instanceof LorikeetError || !(thrown instanceof Error)) return asLorikeetError(thrown)
  const { code, statusCode } = thrown as Partial<FastifyError>
  if (code === 'FST_ERR_CTP_BODY_TOO_LARGE') return new LorikeetError('BODY_TOO_LARGE', { limitBytes })
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500) {
    return new LorikeetError('BODY_INVALID', { reason: thrown.message }, { cause: thrown })
  }
  return asLorikeetError(thrown)
}
