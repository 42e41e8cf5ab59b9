// What a PyTorch pickle may hold and what it may name: data only. A "call" in it makes one of these values or refuses the file.

import type { Invalid } from './zip-archive.ts'

/** A view of a storage: `torch._utils._rebuild_tensor_v2`. */
export class PickledTensor {
  readonly storageKey: string
  /** `FloatStorage`, `BFloat16Storage`, … */
  readonly storageType: string
  /** Elements from the start of the storage. */
  readonly offset: number
  readonly shape: readonly number[]
  readonly strides: readonly number[]
  constructor(storage: Storage, offset: number, shape: readonly number[], strides: readonly number[]) {
    this.storageKey = storage.key
    this.storageType = storage.type
    this.offset = offset
    this.shape = shape
    this.strides = strides
  }
}

/** The name of a class or function, never the thing itself. */
export class Global {
  readonly name: string
  constructor(name: string) {
    this.name = name
  }
}

export class Storage {
  readonly type: string
  readonly key: string
  constructor(type: string, key: string) {
    this.type = type
    this.key = key
  }
}

/** Bytes, as protocol 2 writes them: text in Latin-1. */
class Bytes {
  readonly buffer: Buffer
  constructor(buffer: Buffer) {
    this.buffer = buffer
  }
}

/** A NumPy dtype; its state says little-endian or the file is refused. */
export class Dtype {
  readonly name: string
  constructor(name: string) {
    this.name = name
  }
}

/** Lists and tuples are both arrays. */
export type Value =
  | string
  | number
  | boolean
  | null
  | readonly Value[]
  | Map<Value, Value>
  | Global
  | Storage
  | PickledTensor
  | Bytes
  | Dtype

const STORAGE = /^torch\.(\w+Storage)$/

/** Scalars that NumPy pickles in the midst of plain numbers: an index taken out of an array is one. */
const READ_SCALAR: Readonly<Record<string, (bytes: Buffer) => number>> = {
  f4: (bytes) => bytes.readFloatLE(),
  f8: (bytes) => bytes.readDoubleLE(),
  i4: (bytes) => bytes.readInt32LE(),
  i8: (bytes) => Number(bytes.readBigInt64LE()),
}

const encodeBytes = ([text, encoding]: readonly Value[]): Value | null =>
  typeof text === 'string' && encoding === 'latin1' ? new Bytes(Buffer.from(text, 'latin1')) : null

const scalar = ([dtype, bytes]: readonly Value[]): Value | null => {
  if (!(dtype instanceof Dtype) || !(bytes instanceof Bytes)) return null
  const read = Object.hasOwn(READ_SCALAR, dtype.name) ? READ_SCALAR[dtype.name] : undefined
  return read === undefined || bytes.buffer.length !== Number(dtype.name.slice(1)) ? null : read(bytes.buffer)
}

/** What each name that may be called makes of its arguments; null = not in a way that such files do. */
const CALLABLES: Readonly<Record<string, (args: readonly Value[]) => Value | null>> = {
  'collections.OrderedDict': (args) => (args.length === 0 ? new Map() : null),
  'torch._utils._rebuild_tensor_v2': ([storage, offset, shape, strides]) =>
    storage instanceof Storage && isSize(offset) && isSizes(shape) && isSizes(strides) && shape.length === strides.length
      ? new PickledTensor(storage, offset, shape, strides)
      : null,
  'torch._utils._rebuild_parameter': ([tensor]) => (tensor instanceof PickledTensor ? tensor : null),
  'torch.Size': ([sizes]) => (isSizes(sizes) ? sizes : null),
  '_codecs.encode': encodeBytes,
  'numpy.dtype': ([name]) => (typeof name === 'string' ? new Dtype(name) : null),
  'numpy.core.multiarray.scalar': scalar,
  'numpy._core.multiarray.scalar': scalar,
}

export function nameGlobal(name: string, invalid: Invalid): Global {
  if (Object.hasOwn(CALLABLES, name) || STORAGE.test(name)) return new Global(name)
  throw invalid(`it names ${name}, which is no part of a dictionary of tensors`)
}

/** Throws `invalid` for any call but those above. */
export function call(callable: Value, args: Value, invalid: Invalid): Value {
  if (!(callable instanceof Global) || !Array.isArray(args)) throw invalid('it calls something that is not a name')
  const make = Object.hasOwn(CALLABLES, callable.name) ? CALLABLES[callable.name] : undefined
  const made = make?.(args) ?? null
  if (made === null) throw invalid(`it calls ${callable.name} in a way no dictionary of tensors needs`)
  return made
}

/** Sets what an object carries beside its arguments: a module's version on its state dict, the byte order of a dtype. */
export function build(target: Value, state: Value, invalid: Invalid): void {
  if (target instanceof Map) return
  const isLittleEndian = target instanceof Dtype && Array.isArray(state) && state[1] === '<'
  if (!isLittleEndian) throw invalid('it builds an object')
}

/** The persistent id of a tensor's data: ('storage', FloatStorage, key, location, number of elements). */
export function storageOf(id: Value, invalid: Invalid): Storage {
  if (Array.isArray(id) && id[0] === 'storage' && id[1] instanceof Global && typeof id[2] === 'string') {
    const type = STORAGE.exec(id[1].name)?.[1]
    if (type !== undefined) return new Storage(type, id[2])
  }
  throw invalid('it refers to something that is not a storage')
}

function isSize(value: Value | undefined): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
}

function isSizes(value: Value | undefined): value is number[] {
  return Array.isArray(value) && value.every(isSize)
}
