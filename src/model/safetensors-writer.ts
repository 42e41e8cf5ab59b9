// Writes a safetensors file tensor by tensor, so that a model's worth of tensors never sits in memory whole. The header, which comes
// first, says where each lies: data goes to a file of its own until all of it is known.

import { closeSync, openSync, readSync, renameSync, rmSync, writeSync } from 'node:fs'

type TensorArray = Float32Array | Int32Array

interface Written {
  readonly dtype: 'F32' | 'I32'
  readonly shape: readonly number[]
  readonly data_offsets: readonly [number, number]
}

/** Headers are padded so that the data begins on a multiple of this many bytes, as the reference writer does. */
const ALIGNMENT_BYTES = 8

const COPY_CHUNK_BYTES = 1 << 20

export class SafetensorsWriter {
  readonly #path: string
  readonly #dataPath: string
  readonly #data: number
  readonly #header: Record<string, Written> = {}
  #dataBytes = 0

  constructor(path: string) {
    this.#path = path
    this.#dataPath = `${path}.data`
    this.#data = openSync(this.#dataPath, 'w')
  }

  get numTensors(): number {
    return Object.keys(this.#header).length
  }

  get numBytes(): number {
    return this.#dataBytes
  }

  add(name: string, shape: readonly number[], values: TensorArray): void {
    const bytes = Buffer.from(values.buffer, values.byteOffset, values.byteLength)
    writeAll(this.#data, bytes)
    const end = this.#dataBytes + bytes.length
    const dtype = values instanceof Int32Array ? 'I32' : 'F32'
    this.#header[name] = { dtype, shape, data_offsets: [this.#dataBytes, end] }
    this.#dataBytes = end
  }

  /** The file appears whole or not at all. */
  finish(): void {
    closeSync(this.#data)
    const json = JSON.stringify(this.#header)
    const header = Buffer.from(json.padEnd(Math.ceil(Buffer.byteLength(json) / ALIGNMENT_BYTES) * ALIGNMENT_BYTES))
    const length = Buffer.alloc(8)
    length.writeBigUInt64LE(BigInt(header.length))
    const partPath = `${this.#path}.part`
    const out = openSync(partPath, 'w')
    writeAll(out, Buffer.concat([length, header]))
    appendFile(out, this.#dataPath)
    closeSync(out)
    renameSync(partPath, this.#path)
    rmSync(this.#dataPath)
  }
}

function appendFile(out: number, path: string): void {
  const from = openSync(path, 'r')
  const chunk = Buffer.alloc(COPY_CHUNK_BYTES)
  for (let count = readSync(from, chunk); count > 0; count = readSync(from, chunk)) writeAll(out, chunk.subarray(0, count))
  closeSync(from)
}

function writeAll(file: number, bytes: Buffer): void {
  for (let done = 0; done < bytes.length; ) done += writeSync(file, bytes, done)
}
