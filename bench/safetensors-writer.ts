// Writes float32 safetensors tensor by tensor, so that a model larger than one buffer never sits in memory whole.

import { closeSync, openSync, renameSync, writeSync } from 'node:fs'

export interface TensorShape {
  readonly name: string
  readonly shape: readonly number[]
}

/** Layout: u64 header length, JSON header padded to 8 bytes, then the tensors in the order given. */
export function writeSafetensors(
  path: string,
  tensors: readonly TensorShape[],
  fill: (name: string, out: Float32Array) => void,
) {
  const header: Record<string, unknown> = { __metadata__: { format: 'pt' } }
  let end = 0
  for (const { name, shape } of tensors) {
    const start = end
    end += numElements(shape) * Float32Array.BYTES_PER_ELEMENT
    header[name] = { dtype: 'F32', shape, data_offsets: [start, end] }
  }
  const text = Buffer.from(JSON.stringify(header))
  const padded = Buffer.alloc(Math.ceil(text.length / 8) * 8, ' ')
  text.copy(padded)
  const prefix = Buffer.alloc(8)
  prefix.writeBigUInt64LE(BigInt(padded.length))

  // A file cut short by Ctrl-C must not pass for a finished one.
  const partial = `${path}.partial`
  const file = openSync(partial, 'w')
  try {
    writeAll(file, prefix)
    writeAll(file, padded)
    for (const { name, shape } of tensors) {
      const values = new Float32Array(numElements(shape))
      fill(name, values)
      writeAll(file, new Uint8Array(values.buffer))
    }
  } finally {
    closeSync(file)
  }
  renameSync(partial, path)
}

/** `writeSync` may write less than asked. */
export function writeAll(file: number, bytes: Uint8Array): void {
  for (let offset = 0; offset < bytes.length; ) offset += writeSync(file, bytes, offset)
}

export function numElements(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1)
}
