// From grpc-js calls to plain asynchronous functions: ids, cancellation and errors, once for all services.

import {
  type handleServerStreamingCall,
  type handleUnaryCall,
  Metadata,
  type ServerUnaryCall,
  type ServerWritableStream,
} from '@grpc/grpc-js'
import type { Logger } from 'pino'
import type { RequestSpan } from '../generation/generation.ts'
import { isUsableId, randomId } from '../generation/response-id.ts'
import { type TraceHeaders, traceHeaders } from '../generation/trace-headers.ts'
import type { CallHead } from '../request/generation-call.ts'
import { toFailure } from './grpc-error.ts'

/** A call while it is answered. */
export interface CallInfo {
  /** `x-request-id` of the metadata when it is usable, else a random one. Comes back in the metadata. */
  readonly requestId: string
  readonly isIdGiven: boolean
  /** Epoch milliseconds. */
  readonly arrivedAtMs: number
  readonly trace: TraceHeaders | null
  /** Span that answers the call, for the metadata; null until it has begun, and where no traces are sent. */
  span: RequestSpan | null
  readonly isCancelled: boolean
  /** Calls back when the client cancels, its deadline passes, or the call has ended. */
  onCancelled(listener: () => void): void
}

interface SurfaceCall {
  readonly metadata: Metadata
  readonly cancelled: boolean
  on(event: 'cancelled', listener: () => void): unknown
}

export function callInfo(call: SurfaceCall): CallInfo {
  const given = call.metadata.get('x-request-id')[0]
  const isIdGiven = isUsableId(given)
  return {
    requestId: isIdGiven ? given : randomId(),
    isIdGiven,
    arrivedAtMs: performance.timeOrigin + performance.now(),
    trace: traceHeaders(call.metadata.get('traceparent')[0], call.metadata.get('tracestate')[0]),
    span: null,
    get isCancelled() {
      return call.cancelled
    },
    onCancelled: (listener) => call.on('cancelled', listener),
  }
}

/** Metadata, then the request's own id, then the random one. */
export function callHead(prefix: string, { requestId, isIdGiven, arrivedAtMs, trace }: CallInfo): CallHead {
  return {
    arrivedAtMs,
    trace,
    responseId: (fieldId) => prefix + (isIdGiven || !isUsableId(fieldId) ? requestId : fieldId),
  }
}

export function initialMetadata(info: CallInfo): Metadata {
  const metadata = new Metadata()
  metadata.set('x-request-id', info.requestId)
  if (info.span !== null) metadata.set('traceparent', info.span.traceparent)
  return metadata
}

/** A null answer is that of a call whose client has left. */
export function unary<Request, Response>(
  answer: (request: Request, info: CallInfo) => Response | null | Promise<Response | null>,
  logger: Logger,
): handleUnaryCall<Request, Response> {
  return async (call: ServerUnaryCall<Request, Response>, callback) => {
    const info = callInfo(call)
    try {
      const response = await answer(call.request, info)
      if (response === null) return
      call.sendMetadata(initialMetadata(info))
      callback(null, response)
    } catch (thrown) {
      callback(toFailure(thrown, info.requestId, logger))
    }
  }
}

/** `answer` writes and ends the call by itself; what it throws ends it too. */
export function serverStreaming<Request, Response>(
  answer: (call: ServerWritableStream<Request, Response>, info: CallInfo) => void | Promise<void>,
  logger: Logger,
): handleServerStreamingCall<Request, Response> {
  return async (call) => {
    const info = callInfo(call)
    try {
      await answer(call, info)
    } catch (thrown) {
      if (!call.cancelled) call.emit('error', toFailure(thrown, info.requestId, logger))
    }
  }
}
