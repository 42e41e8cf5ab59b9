// Reads safetensors files (https://github.com/huggingface/safetensors, "Format"). The header is untrusted input:
// everything a later read relies on is checked here, once, before a tensor is touched.
//
//   bytes 0..7       N, little-endian u64
//   bytes 8..8+N     JSON: name -> { dtype, shape, data_offsets: [begin, end) }, padded with spaces
//   bytes 8+N..      tensor data, offsets relative to here, without gaps or overlaps

import { bf16ToF32, f16ToF32 } from '../core/half.ts'
import { LorikeetError } from '../errors.ts'
import { type FileReader, withFile } from './file-reader.ts'

/** Bytes per element of every dtype a header may name. */
export const DTYPE_BYTES = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E4M3: 1,
  F8_E5M2: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  I64: 8,
  U64: 8,
  F64: 8,
} as const

export type SafetensorsDtype = keyof typeof DTYPE_BYTES

/** Enough to read a tensor; byteOffset counts from the start of the file. */
export interface TensorLocation {
  readonly file: string
  readonly byteOffset: number
  readonly dtype: SafetensorsDtype
  readonly shape: readonly number[]
}

export interface SafetensorsEntry extends TensorLocation {
  readonly name: string
  readonly byteLength: number
}

export interface SafetensorsFile {
  readonly path: string
  readonly fileBytes: number
  /** In the order of the data. */
  readonly tensors: ReadonlyMap<string, SafetensorsEntry>
  readonly metadata: ReadonlyMap<string, string>
}

const LENGTH_BYTES = 8

/** The format's own limit (safetensors refuses longer headers), so that a lying length cannot make us allocate gigabytes. */
const MAX_HEADER_BYTES = 100_000_000

/** Bytes converted at a time: bounds the extra memory of reading a 16-bit tensor as float32. */
const CONVERT_CHUNK_BYTES = 1 << 20

/** Parses and validates the header. Throws SAFETENSORS_INVALID with the reason. */
export function openSafetensors(path: string): SafetensorsFile {
  return readFrom(path, ({ fileBytes, readAt }) => {
    if (fileBytes < LENGTH_BYTES) throw invalid(path, `the file has ${fileBytes} bytes, too few for a header`)
    const headerBytes = Number(readAt(0, LENGTH_BYTES).readBigUInt64LE())
    if (headerBytes > MAX_HEADER_BYTES) {
      throw invalid(path, `the header says ${headerBytes} bytes, over the limit of ${MAX_HEADER_BYTES}`)
    }
    const dataStart = LENGTH_BYTES + headerBytes
    if (dataStart > fileBytes) throw invalid(path, `truncated: the header says ${headerBytes} bytes, the file has ${fileBytes}`)
    const header = parseHeader(path, readAt(LENGTH_BYTES, headerBytes))
    const metadata = parseMetadata(path, header['__metadata__'])
    const entries = Object.entries(header)
      .filter(([name]) => name !== '__metadata__')
      .map(([name, value]) => parseEntry(path, name, value, dataStart))
      .sort((a, b) => a.byteOffset - b.byteOffset || a.byteLength - b.byteLength)
    checkLayout(path, entries, dataStart, fileBytes)
    return { path, fileBytes, metadata, tensors: new Map(entries.map((entry) => [entry.name, entry])) }
  })
}

/** The tensor as float32, row-major, in a fresh array. F32, F16, BF16 and F64 (rounded) only. */
export function readTensorF32(tensor: TensorLocation): Float32Array {
  const { file, dtype } = tensor
  const out = new Float32Array(elementCount(tensor.shape))
  if (dtype === 'F32') {
    readFrom(file, ({ fill }) => fill(tensor.byteOffset, asBytes(out)))
    return out
  }
  const convert = FLOAT_CONVERTERS[dtype]
  if (convert === undefined) throw invalid(file, `a ${dtype} tensor where floating point was expected`)
  const elementBytes = DTYPE_BYTES[dtype]
  const chunkElements = CONVERT_CHUNK_BYTES / elementBytes
  readFrom(file, ({ fill }) => {
    const chunk = Buffer.from(new ArrayBuffer(Math.min(chunkElements, out.length) * elementBytes))
    for (let start = 0; start < out.length; start += chunkElements) {
      const count = Math.min(chunkElements, out.length - start)
      const bytes = chunk.subarray(0, count * elementBytes)
      fill(tensor.byteOffset + start * elementBytes, bytes)
      convert(bytes, out.subarray(start, start + count))
    }
  })
  return out
}

const FLOAT_CONVERTERS: Partial<Record<SafetensorsDtype, (bytes: Buffer, out: Float32Array) => void>> = {
  F16: (bytes, out) => f16ToF32(new Uint16Array(bytes.buffer, bytes.byteOffset, out.length), out),
  BF16: (bytes, out) => bf16ToF32(new Uint16Array(bytes.buffer, bytes.byteOffset, out.length), out),
  F64: (bytes, out) => out.set(new Float64Array(bytes.buffer, bytes.byteOffset, out.length)),
}

/** An integer or boolean tensor, in a fresh array. Throws SAFETENSORS_INVALID for other dtypes and values beyond 32 bits. */
export function readTensorI32(tensor: TensorLocation): Int32Array {
  const read = INTEGER_READERS[tensor.dtype]
  if (read === undefined) throw invalid(tensor.file, `a ${tensor.dtype} tensor where integers were expected`)
  const count = elementCount(tensor.shape)
  const elementBytes = DTYPE_BYTES[tensor.dtype]
  const bytes = readFrom(tensor.file, ({ readAt }) => readAt(tensor.byteOffset, count * elementBytes))
  const out = new Int32Array(count)
  for (let i = 0; i < count; i++) {
    const value = read(bytes, i * elementBytes)
    out[i] = value
    if (out[i] !== value) throw invalid(tensor.file, `an integer tensor holds ${value}, beyond 32 bits`)
  }
  return out
}

const INTEGER_READERS: Partial<Record<SafetensorsDtype, (bytes: Buffer, at: number) => number>> = {
  BOOL: (bytes, at) => bytes.readUInt8(at),
  U8: (bytes, at) => bytes.readUInt8(at),
  I8: (bytes, at) => bytes.readInt8(at),
  U16: (bytes, at) => bytes.readUInt16LE(at),
  I16: (bytes, at) => bytes.readInt16LE(at),
  U32: (bytes, at) => bytes.readUInt32LE(at),
  I32: (bytes, at) => bytes.readInt32LE(at),
  U64: (bytes, at) => Number(bytes.readBigUInt64LE(at)),
  I64: (bytes, at) => Number(bytes.readBigInt64LE(at)),
}

/** Index of the first NaN or infinity, or -1. */
export function findNonFinite(values: Float32Array): number {
  for (let i = 0; i < values.length; i++) {
    const value = values[i] as number
    // NaN and the infinities are the only values whose difference with themselves is not 0.
    if (value - value !== 0) return i
  }
  return -1
}

export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1)
}

function parseHeader(path: string, bytes: Buffer): Record<string, unknown> {
  let text: string
  let parsed: unknown
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
    parsed = JSON.parse(text)
  } catch (cause) {
    throw invalid(path, `the header is not JSON (${cause instanceof Error ? cause.message : String(cause)})`)
  }
  if (!isObject(parsed)) throw invalid(path, 'the header is not a JSON object')
  const duplicate = findDuplicateKey(text)
  if (duplicate !== null) throw invalid(path, `tensor ${duplicate} appears twice`)
  return parsed
}

/**
 * JSON.parse keeps the last of two equal keys and says nothing; a file that says two things must be refused.
 * `text` is valid JSON. A scan and not a regular expression: those overflow their stack on strings of tens of megabytes.
 */
function findDuplicateKey(text: string): string | null {
  const seen = new Set<string>()
  let depth = 0
  for (let i = 0; i < text.length; i++) {
    const char = text[i]
    if (char === '{' || char === '[') depth++
    else if (char === '}' || char === ']') depth--
    else if (char === '"') {
      const start = i
      i = endOfString(text, start)
      if (depth !== 1 || !isKey(text, i)) continue
      const key: string = JSON.parse(text.slice(start, i + 1))
      if (seen.has(key)) return key
      seen.add(key)
    }
  }
  return null
}

/** Index of the closing quote of the string that opens at `start`. */
function endOfString(text: string, start: number): number {
  let i = start + 1
  while (text[i] !== '"') i += text[i] === '\\' ? 2 : 1
  return i
}

function isKey(text: string, endQuote: number): boolean {
  let i = endQuote + 1
  while (' \t\r\n'.includes(text[i] ?? '!')) i++
  return text[i] === ':'
}

function parseMetadata(path: string, value: unknown): ReadonlyMap<string, string> {
  if (value === undefined) return new Map()
  if (!isObject(value)) throw invalid(path, '__metadata__ is not an object')
  const metadata = new Map<string, string>()
  for (const [key, text] of Object.entries(value)) {
    if (typeof text !== 'string') throw invalid(path, `__metadata__.${key} is not a string`)
    metadata.set(key, text)
  }
  return metadata
}

function parseEntry(path: string, name: string, value: unknown, dataStart: number): SafetensorsEntry {
  if (!isObject(value)) throw invalid(path, `tensor ${name} is not described by an object`)
  const { dtype, shape, data_offsets: offsets } = value
  if (!isDtype(dtype)) throw invalid(path, `tensor ${name} has unknown dtype ${JSON.stringify(dtype)}`)
  if (!isSizes(shape)) throw invalid(path, `tensor ${name} has shape ${JSON.stringify(shape)}`)
  if (!isSizes(offsets) || offsets.length !== 2) {
    throw invalid(path, `tensor ${name} has data_offsets ${JSON.stringify(offsets)}`)
  }
  const [begin = 0, end = 0] = offsets
  if (begin > end) throw invalid(path, `tensor ${name} has data_offsets out of order (${begin} > ${end})`)
  const byteLength = elementCount(shape) * DTYPE_BYTES[dtype]
  if (byteLength !== end - begin) {
    throw invalid(
      path,
      `tensor ${name}: ${dtype} [${shape.join(', ')}] takes ${byteLength} bytes, data_offsets span ${end - begin}`,
    )
  }
  return { file: path, name, dtype, shape, byteOffset: dataStart + begin, byteLength }
}

function checkLayout(path: string, entries: readonly SafetensorsEntry[], dataStart: number, fileBytes: number): void {
  let end = dataStart
  for (const { name, byteOffset, byteLength } of entries) {
    if (byteOffset < end) throw invalid(path, `tensor ${name} overlaps the one before it`)
    if (byteOffset > end) throw invalid(path, `${byteOffset - end} bytes before tensor ${name} belong to no tensor`)
    end = byteOffset + byteLength
    if (end > fileBytes) throw invalid(path, `truncated: tensor ${name} ends at byte ${end}, the file has ${fileBytes}`)
  }
  if (end !== fileBytes) throw invalid(path, `${fileBytes - end} bytes at the end belong to no tensor`)
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isDtype(value: unknown): value is SafetensorsDtype {
  return typeof value === 'string' && Object.hasOwn(DTYPE_BYTES, value)
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0)
}

/** The bytes of `target`, to be filled as stored: files are little-endian, as is every platform this program runs on. */
function asBytes(target: Float32Array): Buffer {
  return Buffer.from(target.buffer as ArrayBuffer, target.byteOffset, target.byteLength)
}

function readFrom<T>(file: string, use: (reader: FileReader) => T): T {
  return withFile(file, (reason) => invalid(file, reason), use)
}

function invalid(file: string, reason: string): LorikeetError {
  return new LorikeetError('SAFETENSORS_INVALID', { file, reason })
}
