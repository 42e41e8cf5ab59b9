// Bodies over the limit. A connection that closes while the client still sends shows it a broken pipe instead of our answer.

import type { IncomingMessage } from 'node:http'

/** Of what is over the limit, so many times the limit is still read and dropped; who sends more sees the connection close. */
const MAX_DISCARDED_LIMITS = 4
/** A client that stalls gets its answer then, and the connection closes. */
const TIMEOUT_MS = 10_000

/** Reads and drops what the client still sends; resolves when that ended, or went on for too long. */
export function discardBody(request: IncomingMessage, limitBytes: number): Promise<void> {
  return new Promise((resolve) => {
    let numBytes = 0
    const count = (chunk: Buffer): void => {
      numBytes += chunk.length
      if (numBytes > limitBytes * MAX_DISCARDED_LIMITS) finish()
    }
    const finish = (): void => {
      clearTimeout(timer)
      request.off('data', count).off('end', finish).off('close', finish)
      resolve()
    }
    const timer = setTimeout(finish, TIMEOUT_MS)
    request.on('data', count).on('end', finish).on('close', finish)
    if (request.readableEnded || request.destroyed) finish()
  })
}
