// Writes files as torch.save does: a ZIP archive of stored entries, its data.pkl in protocol 2, tensors little-endian beside it.

import { writeFileSync } from 'node:fs'

/** A float32 tensor. */
export interface TorchTensor {
  readonly shape: readonly number[]
  readonly values: readonly number[]
}

/** `torch.Size`. */
export class TorchSize {
  readonly sizes: readonly number[]
  constructor(sizes: readonly number[]) {
    this.sizes = sizes
  }
}

/** A `numpy.int64` among plain integers. */
export class NumpyInt {
  readonly value: number
  constructor(value: number) {
    this.value = value
  }
}

export type TorchValue = TorchTensor | TorchSize | NumpyInt | number | string | null | readonly TorchValue[] | TorchDict
export interface TorchDict {
  readonly [key: string]: TorchValue
}

export function tensor(shape: readonly number[], values: readonly number[]): TorchTensor {
  return { shape, values }
}

export function matrix(rows: readonly (readonly number[])[]): TorchTensor {
  return { shape: [rows.length, rows[0]!.length], values: rows.flat() }
}

export function writeTorchFile(path: string, value: TorchDict): void {
  const pickler = new Pickler()
  const pickle = pickler.run(value)
  const data = pickler.tensors.map((values, i) => [`archive/data/${i}`, Buffer.from(Float32Array.from(values).buffer)] as const)
  const entries = [['archive/data.pkl', pickle], ['archive/byteorder', Buffer.from('little')], ...data] as const
  writeFileSync(path, zip(entries))
}

class Pickler {
  readonly tensors: (readonly number[])[] = []
  readonly #parts: (Buffer | string)[] = []

  run(value: TorchDict): Buffer {
    this.#add('\x80\x02')
    this.#value(value)
    this.#add('.')
    return Buffer.concat(this.#parts.map((part) => (typeof part === 'string' ? Buffer.from(part, 'latin1') : part)))
  }

  #add(...parts: (Buffer | string)[]): void {
    this.#parts.push(...parts)
  }

  #value(value: TorchValue): void {
    if (value === null) this.#add('N')
    else if (typeof value === 'number') this.#number(value)
    else if (typeof value === 'string') this.#text(value)
    else if (Array.isArray(value)) this.#list(value)
    else if (value instanceof TorchSize) {
      this.#add('ctorch\nSize\n')
      this.#tuple(value.sizes)
      this.#add('\x85R')
    } else if (value instanceof NumpyInt) this.#numpy(value.value)
    else if (isTensor(value)) this.#tensor(value)
    else this.#dict(value as TorchDict)
  }

  #number(value: number): void {
    if (Number.isInteger(value)) {
      const bytes = Buffer.alloc(5, 'J')
      bytes.writeInt32LE(value, 1)
      this.#add(bytes)
      return
    }
    const bytes = Buffer.alloc(9, 'G')
    bytes.writeDoubleBE(value, 1)
    this.#add(bytes)
  }

  #text(value: string): void {
    const text = Buffer.from(value)
    const head = Buffer.alloc(5, 'X')
    head.writeUInt32LE(text.length, 1)
    this.#add(head, text)
  }

  #list(items: readonly TorchValue[]): void {
    this.#add('](')
    for (const item of items) this.#value(item)
    this.#add('e')
  }

  #tuple(items: readonly (number | string | null)[]): void {
    this.#add('(')
    for (const item of items) this.#value(item)
    this.#add('t')
  }

  #dict(dict: TorchDict): void {
    this.#add('}(')
    for (const [key, value] of Object.entries(dict)) {
      this.#text(key)
      this.#value(value)
    }
    this.#add('u')
  }

  #numpy(value: number): void {
    const bytes = Buffer.alloc(8)
    bytes.writeBigInt64LE(BigInt(value))
    this.#add('cnumpy._core.multiarray\nscalar\ncnumpy\ndtype\n')
    this.#text('i8')
    this.#add('\x89\x88\x87R')
    this.#tuple([3, '<', null, null, null, -1, -1, 0])
    this.#add('bc_codecs\nencode\n')
    this.#text(bytes.toString('latin1'))
    this.#text('latin1')
    this.#add('\x86R\x86R')
  }

  #tensor({ shape, values }: TorchTensor): void {
    this.#add('ctorch._utils\n_rebuild_tensor_v2\n((')
    this.#text('storage')
    this.#add('ctorch\nFloatStorage\n')
    this.#text(String(this.tensors.length))
    this.#text('cpu')
    this.#number(values.length)
    this.#add('tQK\x00')
    this.#tuple(shape)
    this.#tuple(shape.map((_, axis) => shape.slice(axis + 1).reduce((product, size) => product * size, 1)))
    this.#add('\x89ccollections\nOrderedDict\n)RtR')
    this.tensors.push(values)
  }
}

function isTensor(value: object): value is TorchTensor {
  return 'shape' in value && 'values' in value && Array.isArray(value.shape)
}

/** The reader looks at names, sizes and offsets; checksums stay 0. */
function zip(entries: readonly (readonly [string, Buffer])[]): Buffer {
  const files: Buffer[] = []
  const directory: Buffer[] = []
  let offset = 0
  for (const [name, data] of entries) {
    const local = Buffer.alloc(30)
    local.writeUInt32LE(0x04034b50, 0)
    local.writeUInt32LE(data.length, 18)
    local.writeUInt32LE(data.length, 22)
    local.writeUInt16LE(name.length, 26)
    const central = Buffer.alloc(46)
    central.writeUInt32LE(0x02014b50, 0)
    central.writeUInt32LE(data.length, 20)
    central.writeUInt32LE(data.length, 24)
    central.writeUInt16LE(name.length, 28)
    central.writeUInt32LE(offset, 42)
    directory.push(central, Buffer.from(name))
    files.push(local, Buffer.from(name), data)
    offset += 30 + name.length + data.length
  }
  const directoryBytes = directory.reduce((sum, { length }) => sum + length, 0)
  const end = Buffer.alloc(22)
  end.writeUInt32LE(0x06054b50, 0)
  end.writeUInt16LE(entries.length, 8)
  end.writeUInt16LE(entries.length, 10)
  end.writeUInt32LE(directoryBytes, 12)
  end.writeUInt32LE(offset, 16)
  return Buffer.concat([...files, ...directory, end])
}
