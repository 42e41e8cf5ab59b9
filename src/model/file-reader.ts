// Reads of untrusted files at given places, without ever reading past their end or waiting on a pipe.

import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { LorikeetError } from '../errors.ts'

export interface FileReader {
  readonly fileBytes: number
  /** A fresh buffer of exactly `length` bytes. */
  readonly readAt: (offset: number, length: number) => Buffer
  /** Fills `target` from `offset`. */
  readonly fill: (offset: number, target: Buffer) => Buffer
}

/** One read call moves at most 2 GiB. */
const MAX_READ_BYTES = 2 ** 30

/** Opens a regular file for the time of `use`. Failures of the system become `invalid(reason)`. */
export function withFile<T>(path: string, invalid: (reason: string) => LorikeetError, use: (reader: FileReader) => T): T {
  let fd = -1
  try {
    // Without O_NONBLOCK opening a named pipe would wait for its writer.
    fd = openSync(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0))
    const stats = fstatSync(fd)
    if (!stats.isFile()) throw invalid('not a regular file')
    const fill = (offset: number, target: Buffer): Buffer => {
      for (let done = 0; done < target.length; ) {
        const count = readSync(fd, target, done, Math.min(target.length - done, MAX_READ_BYTES), offset + done)
        if (count === 0) throw invalid(`truncated: the file ends at byte ${offset + done}`)
        done += count
      }
      return target
    }
    return use({ fileBytes: stats.size, fill, readAt: (offset, length) => fill(offset, Buffer.alloc(length)) })
  } catch (cause) {
    if (cause instanceof LorikeetError) throw cause
    throw invalid(`cannot be read (${cause instanceof Error ? cause.message : String(cause)})`)
  } finally {
    if (fd !== -1) closeSync(fd)
  }
}
