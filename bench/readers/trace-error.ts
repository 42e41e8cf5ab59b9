import { LorikeetError } from '../../src/errors.ts'

/** A malformed trace: the message has file, line (from 1) and column name. */
export function traceError(file: string, line: number, column: string, reason: string): LorikeetError {
  return new LorikeetError('TRACE_INVALID', { file, line, column, reason })
}
