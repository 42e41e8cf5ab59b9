// Error answers: vLLM's object with an integer code, or OpenAI's with words.

import { ERRORS, LorikeetError } from '../../errors.ts'

export type ErrorStyle = 'vllm' | 'openai'

export interface ErrorBody {
  readonly error: {
    readonly message: string
    readonly type: string
    readonly param: string | null
    readonly code: number | string | null
  }
}

export function errorBody(thrown: LorikeetError, style: ErrorStyle): ErrorBody {
  const error = isPrivate(thrown) ? new LorikeetError('INTERNAL', { detail: 'see the log of the server' }) : thrown
  const { message, field: param } = error
  const { http, type, openai } = ERRORS[error.code]
  if (style === 'vllm') return { error: { message, type, param, code: http } }
  return { error: { message, type: openAiType(http), param, code: openai } }
}

/** What was not foreseen may name files or hold anything else: it goes to the log only. */
function isPrivate(error: LorikeetError): boolean {
  return error.code === 'INTERNAL'
}

/** Two deployed controllers read the fields at the top level on the adapter routes. */
export function dualErrorBody(error: LorikeetError, style: ErrorStyle): ErrorBody & { message: string; type: string } {
  const body = errorBody(error, style)
  return { ...body, message: body.error.message, type: body.error.type }
}

function openAiType(status: number): string {
  if (status === 401) return 'authentication_error'
  if (status === 429) return 'rate_limit_error'
  return status >= 500 ? 'server_error' : 'invalid_request_error'
}

// One second: queues move in steps of milliseconds, and a restart takes a few seconds.
const RETRY_AFTER_S = '1'

/** Headers that belong to an error. */
export function errorHeaders(error: LorikeetError): Record<string, string> {
  const status = error.httpStatus
  if (status === 429 || status === 503) return { 'retry-after': RETRY_AFTER_S }
  if (error.code === 'METHOD_NOT_ALLOWED') return { allow: String(error.params['allowed']) }
  return status === 401 ? { 'www-authenticate': 'Bearer' } : {}
}
