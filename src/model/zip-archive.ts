// Finds the bytes of the entries of a ZIP archive whose entries are stored as they are, as PyTorch writes them
// (https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, 4.3). Untrusted input: every offset is checked against the file.

import type { LorikeetError } from '../errors.ts'

/** Where an entry's bytes lie in the file. */
export interface StoredEntry {
  readonly byteOffset: number
  readonly byteLength: number
}

/** Reads `length` bytes at `offset`, or throws. */
export type ReadAt = (offset: number, length: number) => Buffer

/** Makes the error that says what is wrong with the file. */
export type Invalid = (reason: string) => LorikeetError

const END_SIGNATURE = 0x06054b50
const CENTRAL_SIGNATURE = 0x02014b50
const LOCAL_SIGNATURE = 0x04034b50

const END_BYTES = 22
const CENTRAL_BYTES = 46
const LOCAL_BYTES = 30

/** The end record may be followed by a comment of up to 64 KiB. */
const MAX_COMMENT_BYTES = 0xffff

/** In place of a size or offset: the real one is in a ZIP64 record. */
const IN_ZIP64 = 0xffffffff

/** By name. Throws `invalid` where the archive is damaged, compressed, or larger than 4 GiB. */
export function readStoredEntries(fileBytes: number, readAt: ReadAt, invalid: Invalid): ReadonlyMap<string, StoredEntry> {
  const tailBytes = Math.min(fileBytes, END_BYTES + MAX_COMMENT_BYTES)
  const tail = readAt(fileBytes - tailBytes, tailBytes)
  const end = findEnd(tail, invalid)
  const numEntries = end.readUInt16LE(10)
  const directoryBytes = end.readUInt32LE(12)
  const directoryOffset = end.readUInt32LE(16)
  if (directoryOffset === IN_ZIP64 || directoryBytes === IN_ZIP64) throw invalid('archives over 4 GiB are not read')
  if (directoryOffset + directoryBytes > fileBytes) throw invalid('its directory lies outside the file')
  const directory = readAt(directoryOffset, directoryBytes)
  const entries = new Map<string, StoredEntry>()
  for (let i = 0, at = 0; i < numEntries; i++) {
    if (at + CENTRAL_BYTES > directory.length || directory.readUInt32LE(at) !== CENTRAL_SIGNATURE) {
      throw invalid('its directory is damaged')
    }
    const nameBytes = directory.readUInt16LE(at + 28)
    const name = directory.toString('utf8', at + CENTRAL_BYTES, at + CENTRAL_BYTES + nameBytes)
    if (entries.has(name)) throw invalid(`entry ${name} appears twice`)
    entries.set(name, locate(name, directory.subarray(at, at + CENTRAL_BYTES), fileBytes, readAt, invalid))
    at += CENTRAL_BYTES + nameBytes + directory.readUInt16LE(at + 30) + directory.readUInt16LE(at + 32)
  }
  return entries
}

function findEnd(tail: Buffer, invalid: Invalid): Buffer {
  for (let at = tail.length - END_BYTES; at >= 0; at--) {
    if (tail.readUInt32LE(at) === END_SIGNATURE) return tail.subarray(at)
  }
  throw invalid('it is not a ZIP archive, as PyTorch 1.6 and later write')
}

function locate(name: string, central: Buffer, fileBytes: number, readAt: ReadAt, invalid: Invalid): StoredEntry {
  const method = central.readUInt16LE(10)
  const byteLength = central.readUInt32LE(20)
  const localOffset = central.readUInt32LE(42)
  if (byteLength === IN_ZIP64 || localOffset === IN_ZIP64) throw invalid('archives over 4 GiB are not read')
  if (method !== 0) throw invalid(`entry ${name} is compressed`)
  if (localOffset + LOCAL_BYTES > fileBytes) throw invalid(`entry ${name} lies outside the file`)
  const local = readAt(localOffset, LOCAL_BYTES)
  if (local.readUInt32LE(0) !== LOCAL_SIGNATURE) throw invalid(`entry ${name} is damaged`)
  const byteOffset = localOffset + LOCAL_BYTES + local.readUInt16LE(26) + local.readUInt16LE(28)
  if (byteOffset + byteLength > fileBytes) throw invalid(`entry ${name} lies outside the file`)
  return { byteOffset, byteLength }
}
