// A PyTorch checkpoint (`.bin`, `.pt`) as locations of tensors in the file. Reading it runs nothing (torch-pickle.ts).

import { LorikeetError } from '../errors.ts'
import { type FileReader, withFile } from './file-reader.ts'
import { DTYPE_BYTES, elementCount, type SafetensorsDtype, type SafetensorsEntry } from './safetensors.ts'
import { readPickle, readStateDict } from './torch-pickle.ts'
import { PickledTensor, type Value } from './torch-values.ts'
import { type Invalid, readStoredEntries, type StoredEntry } from './zip-archive.ts'

const DTYPE_OF_STORAGE: Readonly<Record<string, SafetensorsDtype>> = {
  BFloat16Storage: 'BF16',
  BoolStorage: 'BOOL',
  ByteStorage: 'U8',
  CharStorage: 'I8',
  DoubleStorage: 'F64',
  FloatStorage: 'F32',
  HalfStorage: 'F16',
  IntStorage: 'I32',
  LongStorage: 'I64',
  ShortStorage: 'I16',
}

/** State dicts have a few hundred bytes a tensor; more than this describes no adapter. */
const MAX_PICKLE_BYTES = 100_000_000

/** Dictionaries within dictionaries. The deepest layout read here has three; a dictionary that holds itself has no end. */
const MAX_DEPTH = 4

/** What a file of nested dictionaries holds. */
export type TorchNode = SafetensorsEntry | TorchDictionary | readonly number[] | string | number | boolean | null

export interface TorchDictionary {
  readonly entries: ReadonlyMap<string, TorchNode>
}

/** Tensors by key. Throws TORCH_FILE_INVALID where the file is damaged or holds anything but plain tensors. */
export function openTorchFile(path: string): ReadonlyMap<string, SafetensorsEntry> {
  return withArchive(path, ({ pickle, locate, invalid }) => {
    const tensors = new Map<string, SafetensorsEntry>()
    for (const [name, tensor] of readStateDict(pickle, invalid)) tensors.set(name, locate(name, tensor))
    return tensors
  })
}

/** A dictionary of dictionaries, tensors, lists of numbers, numbers and text. Throws TORCH_FILE_INVALID where it holds anything else. */
export function openTorchDictionary(path: string): TorchDictionary {
  return withArchive(path, ({ pickle, locate, invalid }) => {
    const value = readPickle(pickle, invalid)
    if (!(value instanceof Map)) throw invalid('it does not hold a dictionary')
    return dictionaryOf(value, '', MAX_DEPTH, { locate, invalid, numLeft: MAX_PICKLE_BYTES })
  })
}

type Locate = (name: string, tensor: PickledTensor) => SafetensorsEntry

interface Archive {
  readonly pickle: Buffer
  readonly locate: Locate
  readonly invalid: Invalid
}

function withArchive<T>(path: string, read: (archive: Archive) => T): T {
  const invalid: Invalid = (reason) => new LorikeetError('TORCH_FILE_INVALID', { file: path, reason })
  return withFile(path, invalid, (reader) => read(openArchive(path, reader, invalid)))
}

function openArchive(path: string, { fileBytes, readAt }: FileReader, invalid: Invalid): Archive {
  const entries = readStoredEntries(fileBytes, readAt, invalid)
  const pickleName = [...entries.keys()].find((name) => name === 'data.pkl' || name.endsWith('/data.pkl'))
  const pickle = pickleName === undefined ? undefined : entries.get(pickleName)
  if (pickleName === undefined || pickle === undefined) throw invalid('it has no data.pkl, as torch.save writes')
  if (pickle.byteLength > MAX_PICKLE_BYTES) throw invalid(`its data.pkl has ${pickle.byteLength} bytes`)
  const folder = pickleName.slice(0, -'data.pkl'.length)
  const order = entries.get(`${folder}byteorder`)
  if (order !== undefined && readAt(order.byteOffset, order.byteLength).toString() !== 'little') {
    throw invalid('its numbers are big-endian')
  }
  return {
    pickle: readAt(pickle.byteOffset, pickle.byteLength),
    locate: (name, tensor) => locate(path, name, tensor, entries.get(`${folder}data/${tensor.storageKey}`), invalid),
    invalid,
  }
}

interface Walk {
  readonly locate: Locate
  readonly invalid: Invalid
  /** Entries take a byte of the pickle at least, unless the file refers to one again and again. */
  numLeft: number
}

function dictionaryOf(map: ReadonlyMap<Value, Value>, path: string, depth: number, walk: Walk): TorchDictionary {
  const { invalid } = walk
  const entries = new Map<string, TorchNode>()
  for (const [key, value] of map) {
    if (typeof key !== 'string') throw invalid(`a key of ${path === '' ? 'it' : path} is no text`)
    const name = path === '' ? key : `${path}.${key}`
    entries.set(key, nodeOf(value, name, depth - 1, walk))
  }
  return { entries }
}

function nodeOf(value: Value, name: string, depth: number, walk: Walk): TorchNode {
  const { locate, invalid } = walk
  walk.numLeft -= Array.isArray(value) ? value.length + 1 : 1
  if (walk.numLeft < 0) throw invalid('it repeats its entries without end')
  if (value === null || typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') return value
  if (value instanceof PickledTensor) return locate(name, value)
  if (value instanceof Map && depth > 0) return dictionaryOf(value, name, depth, walk)
  if (Array.isArray(value) && value.every((item) => typeof item === 'number')) return value
  throw invalid(`its entry ${name} is neither a tensor nor a number, text, list of numbers or dictionary`)
}

function locate(
  file: string,
  name: string,
  tensor: PickledTensor,
  storage: StoredEntry | undefined,
  invalid: Invalid,
): SafetensorsEntry {
  const dtype = DTYPE_OF_STORAGE[tensor.storageType]
  if (dtype === undefined) throw invalid(`tensor ${name} is a ${tensor.storageType}, which is not read`)
  if (storage === undefined) throw invalid(`the data of tensor ${name} is missing`)
  if (!isContiguous(tensor)) throw invalid(`tensor ${name} is a strided view; save it again with .contiguous()`)
  const elementBytes = DTYPE_BYTES[dtype]
  const byteLength = elementCount(tensor.shape) * elementBytes
  const start = tensor.offset * elementBytes
  if (start + byteLength > storage.byteLength) throw invalid(`tensor ${name} reaches past its data`)
  return { file, name, dtype, shape: tensor.shape, byteOffset: storage.byteOffset + start, byteLength }
}

function isContiguous({ shape, strides }: PickledTensor): boolean {
  let expected = 1
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    const size = shape[axis] as number
    if (size !== 1 && strides[axis] !== expected) return false
    expected *= size
  }
  return true
}
