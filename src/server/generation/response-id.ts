// Ids of calls: the client's own, so that logs of both sides can be joined, or random ones.

import { randomBytes } from 'node:crypto'

// Printable ASCII without blanks; the value comes back in a header and goes to the log.
const SAFE_ID = /^[\x21-\x7e]{1,256}$/

export function isUsableId(value: unknown): value is string {
  return typeof value === 'string' && SAFE_ID.test(value)
}

/** 32 hexadecimal digits. */
export function randomId(): string {
  return randomBytes(16).toString('hex')
}
