import type { LorikeetError } from '../errors.ts'
import type { NewRequest, RequestFinish, RequestOutput } from './messages.ts'
import type { EngineRequest } from './request.ts'
import type { StopCause } from './stop.ts'

export interface FinishCause extends StopCause {
  readonly error: LorikeetError | null
}

export const ABORTED: FinishCause = { reason: 'abort', stopTokenId: null, error: null }
export const REACHED_LENGTH: FinishCause = { reason: 'length', stopTokenId: null, error: null }

export function failed(error: LorikeetError): FinishCause {
  return { reason: 'error', stopTokenId: null, error }
}

export function finishOf(request: EngineRequest, cause: FinishCause, finishedAtMs: number): RequestFinish {
  const {
    arrivedAtMs,
    firstScheduledAtMs,
    firstTokenAtMs,
    lastTokenAtMs,
    adapterWaitMs,
    numPromptTokens,
    numOutputTokens,
    numCachedTokens,
    numPreemptions,
  } = request
  return {
    reason: cause.reason,
    stopTokenId: cause.stopTokenId,
    error: cause.error === null ? null : cause.error.toWire(),
    metrics: {
      arrivedAtMs,
      firstScheduledAtMs,
      firstTokenAtMs,
      lastTokenAtMs,
      finishedAtMs,
      adapterWaitMs,
      numPromptTokens,
      numOutputTokens,
      numCachedTokens,
      numPreemptions,
    },
  }
}

/** The one output of a request that never reached the scheduler. */
export function refusalOf(request: NewRequest, error: LorikeetError, finishedAtMs: number): RequestOutput {
  const metrics = {
    arrivedAtMs: request.arrivedAtMs,
    firstScheduledAtMs: null,
    firstTokenAtMs: null,
    lastTokenAtMs: null,
    finishedAtMs,
    adapterWaitMs: 0,
    numPromptTokens: request.promptTokenIds.length,
    numOutputTokens: 0,
    numCachedTokens: 0,
    numPreemptions: 0,
  }
  const finish: RequestFinish = { reason: 'error', stopTokenId: null, error: error.toWire(), metrics }
  return { requestId: request.requestId, tokenIds: [], logprobs: null, promptLogprobs: null, finish }
}
