// Reads back from a model that onnxruntime wrote where it put each initializer. Field numbers are onnx.proto's.

import protobuf from 'protobufjs/minimal.js'
import type { ExternalData } from './proto-writer.ts'

const { Reader } = protobuf
type Reader = protobuf.Reader

/** `external_data` entries of every external initializer of the model's graph, by name. */
export function readExternalData(model: Uint8Array): ReadonlyMap<string, ExternalData> {
  const found = new Map<string, ExternalData>()
  eachField(new Reader(model), 7, (graph) =>
    eachField(graph, 5, (tensor) => {
      const { name, entries } = readTensor(tensor)
      if (entries.size > 0) found.set(name, entries)
    }),
  )
  return found
}

function readTensor(reader: Reader): { name: string; entries: ExternalData } {
  const entries = new Map<string, string>()
  let name = ''
  while (reader.pos < reader.len) {
    const tag = reader.uint32()
    if (tag >>> 3 === 8) name = reader.string()
    else if (tag >>> 3 === 13) {
      const { key, value } = readEntry(new Reader(reader.bytes()))
      entries.set(key, value)
    } else reader.skipType(tag & 7)
  }
  return { name, entries }
}

function readEntry(reader: Reader): { key: string; value: string } {
  const entry = { key: '', value: '' }
  while (reader.pos < reader.len) {
    const tag = reader.uint32()
    if (tag >>> 3 === 1) entry.key = reader.string()
    else if (tag >>> 3 === 2) entry.value = reader.string()
    else reader.skipType(tag & 7)
  }
  return entry
}

function eachField(reader: Reader, field: number, visit: (message: Reader) => void): void {
  while (reader.pos < reader.len) {
    const tag = reader.uint32()
    if (tag >>> 3 === field) visit(new Reader(reader.bytes()))
    else reader.skipType(tag & 7)
  }
}
