// Writes GGUF v3 files with float32 tensors (https://github.com/ggml-org/ggml, docs/gguf.md).
//
//   "GGUF" | u32 version | u64 numTensors | u64 numKeys | keys | tensor infos | padding | tensor data, each aligned
//
// A tensor's dimensions stand fastest first: a row-major [out, in] matrix is written as (in, out).

import { closeSync, openSync, renameSync } from 'node:fs'
import { numElements, type TensorShape, writeAll } from './safetensors-writer.ts'

export type GgufValue =
  | { readonly type: 'u32'; readonly value: number }
  | { readonly type: 'f32'; readonly value: number }
  | { readonly type: 'string'; readonly value: string }

export const u32 = (value: number): GgufValue => ({ type: 'u32', value })
export const f32 = (value: number): GgufValue => ({ type: 'f32', value })
export const str = (value: string): GgufValue => ({ type: 'string', value })

const MAGIC = Buffer.from('GGUF')
const VERSION = 3
/** `general.alignment` when the key is absent. */
const ALIGNMENT = 32
/** Type tags of the format's key-value section. */
const VALUE_TAGS = { u32: 4, f32: 6, string: 8 } as const
/** GGML_TYPE_F32. */
const TENSOR_F32 = 0

/** `fill` gives each tensor's row-major values when its turn comes, so only one tensor is in memory. */
export function writeGguf(
  path: string,
  keys: ReadonlyMap<string, GgufValue>,
  tensors: readonly TensorShape[],
  fill: (name: string) => Float32Array,
): void {
  const partial = `${path}.partial`
  const file = openSync(partial, 'w')
  try {
    const header = encodeHeader(keys, tensors)
    writeAll(file, padded(header))
    for (const { name } of tensors) {
      const values = fill(name)
      writeAll(file, padded(new Uint8Array(values.buffer, values.byteOffset, values.byteLength)))
    }
  } finally {
    closeSync(file)
  }
  renameSync(partial, path)
}

function encodeHeader(keys: ReadonlyMap<string, GgufValue>, tensors: readonly TensorShape[]): Buffer {
  const parts = [MAGIC, encodeU32(VERSION), encodeU64(tensors.length), encodeU64(keys.size)]
  for (const [key, value] of keys) {
    parts.push(encodeString(key), encodeU32(VALUE_TAGS[value.type]), encodeValue(value))
  }
  let offset = 0
  for (const { name, shape } of tensors) {
    parts.push(encodeString(name), encodeU32(shape.length))
    for (const size of shape.toReversed()) parts.push(encodeU64(size))
    parts.push(encodeU32(TENSOR_F32), encodeU64(offset))
    offset = aligned(offset + numElements(shape) * Float32Array.BYTES_PER_ELEMENT)
  }
  return Buffer.concat(parts)
}

function encodeValue(value: GgufValue): Buffer {
  if (value.type === 'string') return encodeString(value.value)
  if (value.type === 'u32') return encodeU32(value.value)
  const out = Buffer.alloc(4)
  out.writeFloatLE(value.value)
  return out
}

function encodeU32(value: number): Buffer {
  const out = Buffer.alloc(4)
  out.writeUInt32LE(value)
  return out
}

function encodeU64(value: number): Buffer {
  const out = Buffer.alloc(8)
  out.writeBigUInt64LE(BigInt(value))
  return out
}

function encodeString(text: string): Buffer {
  const bytes = Buffer.from(text)
  return Buffer.concat([encodeU64(bytes.length), bytes])
}

function aligned(offset: number): number {
  return Math.ceil(offset / ALIGNMENT) * ALIGNMENT
}

function padded(bytes: Uint8Array): Uint8Array {
  const length = aligned(bytes.length)
  if (length === bytes.length) return bytes
  const out = new Uint8Array(length)
  out.set(bytes)
  return out
}
