// Writes safetensors files, right ones and lying ones.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export interface TensorData {
  readonly dtype: string
  readonly shape: readonly number[]
  readonly data: Uint8Array
}

export const f32 = (shape: readonly number[], values: readonly number[]): TensorData => ({
  dtype: 'F32',
  shape,
  data: new Uint8Array(Float32Array.from(values).buffer),
})

let root: string | null = null

/** A fresh directory, removed when the process ends. */
export function tempDir(): string {
  if (root === null) {
    const created = mkdtempSync(join(tmpdir(), 'lorikeet-files-'))
    process.once('exit', () => rmSync(created, { recursive: true, force: true }))
    root = created
  }
  return mkdtempSync(join(root, 'x-'))
}

export function writeSafetensors(path: string, tensors: Readonly<Record<string, TensorData>>): void {
  const header: Record<string, unknown> = {}
  let end = 0
  for (const [name, { dtype, shape, data }] of Object.entries(tensors)) {
    header[name] = { dtype, shape, data_offsets: [end, end + data.length] }
    end += data.length
  }
  writeRaw(path, JSON.stringify(header), Buffer.concat(Object.values(tensors).map(({ data }) => data)))
}

/** Any header and data, however wrong; `headerBytes` may lie about the header's length. */
export function writeRaw(path: string, header: string | Uint8Array, data: Uint8Array, headerBytes?: bigint): void {
  const encoded = Buffer.from(header as string)
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(headerBytes ?? BigInt(encoded.length))
  writeFileSync(path, Buffer.concat([length, encoded, data]))
}
