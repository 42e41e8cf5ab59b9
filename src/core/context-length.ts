// The one wording of "too long", for the server's check before a request runs and the engine's own.

import { LorikeetError } from '../errors.ts'

export interface ContextUse {
  readonly maxModelLen: number
  readonly promptTokens: number
  readonly maxTokens: number
  /** Positions the adapter's virtual tokens take; 0 for most. */
  readonly virtualTokens: number
}

/** `field` is the request field that holds the prompt. */
export function contextLengthExceeded({ virtualTokens, ...use }: ContextUse, field: string | null = null): LorikeetError {
  const total = virtualTokens + use.promptTokens + use.maxTokens
  const options = field === null ? {} : { field }
  if (virtualTokens === 0) return new LorikeetError('CONTEXT_LENGTH_EXCEEDED', { ...use, total }, options)
  return new LorikeetError('ADAPTER_CONTEXT_LENGTH_EXCEEDED', { ...use, total, virtualTokens }, options)
}
