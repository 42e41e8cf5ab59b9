// Coded errors as gRPC statuses, with google.rpc details in the trailer where client libraries look for them.

import { Metadata } from '@grpc/grpc-js'
import type { Logger } from 'pino'
import { asLorikeetError, LorikeetError } from '../../errors.ts'
import { BadRequest, ErrorInfo, RetryInfo } from './generated/google/rpc/error_details.ts'
import { Status } from './generated/google/rpc/status.ts'

const DOMAIN = 'lorikeet'
// Statuses travel in HTTP/2 headers, of which clients take 8 KiB or 16 KiB in all, percent-encoded.
const MAX_MESSAGE_CHARS = 1024
// As `Retry-After` over REST: queues move in steps of milliseconds, and a restart takes a few seconds.
const RETRY_DELAY_S = 1n

export interface Failure {
  readonly code: number
  readonly details: string
  readonly metadata: Metadata
}

/** What a call ends with. What was not foreseen goes to the log, and the client is told no more than that. */
export function toFailure(thrown: unknown, requestId: string, logger: Logger): Failure {
  const error = asLorikeetError(thrown)
  if (error.httpStatus >= 500 && error.httpStatus !== 503) logger.error({ requestId, err: error }, 'request failed')
  const shown = error.code === 'INTERNAL' ? new LorikeetError('INTERNAL', { detail: 'see the log of the server' }) : error
  const details = clean(shown.message)
  const metadata = new Metadata()
  metadata.set('x-request-id', requestId)
  metadata.set('grpc-status-details-bin', encodeDetails(shown, details))
  return { code: shown.grpcStatus, details, metadata }
}

/** What a client sent may be part of a message: lone surrogates cannot be encoded, and anything may be long. */
export function clean(message: string): string {
  const clipped = message.length > MAX_MESSAGE_CHARS ? `${message.slice(0, MAX_MESSAGE_CHARS)}...` : message
  return clipped.replace(/\p{Surrogate}/gu, '\ufffd')
}

function encodeDetails(error: LorikeetError, message: string): Buffer {
  const details = [
    packed('ErrorInfo', ErrorInfo.encode({ reason: error.code, domain: DOMAIN, metadata: {} }).finish()),
    ...(error.field === null ? [] : [packed('BadRequest', badRequest(clean(error.field), message))]),
    ...(isRetryable(error) ? [packed('RetryInfo', retryInfo())] : []),
  ]
  return Buffer.from(Status.encode({ code: error.grpcStatus, message, details }).finish())
}

function packed(type: string, value: Uint8Array): { typeUrl: string; value: Buffer } {
  return { typeUrl: `type.googleapis.com/google.rpc.${type}`, value: Buffer.from(value) }
}

function badRequest(field: string, description: string): Uint8Array {
  return BadRequest.encode({ fieldViolations: [{ field, description }] }).finish()
}

function retryInfo(): Uint8Array {
  return RetryInfo.encode({ retryDelay: { seconds: RETRY_DELAY_S, nanos: 0 } }).finish()
}

/** Some exhausted resources, such as a request too large for the cache, never come back. */
function isRetryable({ httpStatus }: LorikeetError): boolean {
  return httpStatus === 429 || httpStatus === 503
}
