// LoRAX's errors: a text, and a word that its clients choose an exception by.

import type { LorikeetError } from '../../../errors.ts'
import { errorBody } from '../error-body.ts'
import type { ShapedError } from '../send-error.ts'

// LoRAX has only the first of each group; where its clients know no word they go by the status.
const WORDS: Readonly<Record<number, string>> = {
  400: 'validation',
  413: 'validation',
  401: 'authentication',
  404: 'not_found',
  429: 'overloaded',
  503: 'unavailable',
}
// A request that was well-formed and cannot be served, and one that failed while it ran.
const VALIDATION_STATUS = 422
const GENERATION_STATUS = 424

export function loraxError(error: LorikeetError): ShapedError {
  const { httpStatus } = error
  const status = httpStatus === 400 ? VALIDATION_STATUS : httpStatus === 500 ? GENERATION_STATUS : httpStatus
  return { status, body: loraxErrorBody(error) }
}

export function loraxErrorBody(error: LorikeetError): { error: string; error_type: string } {
  const { message } = errorBody(error, 'vllm').error
  return { error: message, error_type: WORDS[error.httpStatus] ?? 'generation' }
}

/** A generation that the server ended before it was complete. */
export const INCOMPLETE: ShapedError = {
  status: 500,
  body: { error: 'The server is shutting down: the generation is incomplete.', error_type: 'incomplete_generation' },
}
