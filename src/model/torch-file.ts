// A PyTorch checkpoint (`.bin`, `.pt`) as locations of tensors in the file. Reading it runs nothing (torch-pickle.ts).

import { LorikeetError } from '../errors.ts'
import { type FileReader, withFile } from './file-reader.ts'
import { DTYPE_BYTES, elementCount, type SafetensorsDtype, type SafetensorsEntry } from './safetensors.ts'
import { type PickledTensor, readStateDict } from './torch-pickle.ts'
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

/** Tensors by key. Throws TORCH_FILE_INVALID where the file is damaged or holds anything but plain tensors. */
export function openTorchFile(path: string): ReadonlyMap<string, SafetensorsEntry> {
  const invalid: Invalid = (reason) => new LorikeetError('TORCH_FILE_INVALID', { file: path, reason })
  return withFile(path, invalid, (reader) => readArchive(path, reader, invalid))
}

function readArchive(path: string, { fileBytes, readAt }: FileReader, invalid: Invalid): ReadonlyMap<string, SafetensorsEntry> {
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
  const tensors = new Map<string, SafetensorsEntry>()
  for (const [name, tensor] of readStateDict(readAt(pickle.byteOffset, pickle.byteLength), invalid)) {
    tensors.set(name, locate(path, name, tensor, entries.get(`${folder}data/${tensor.storageKey}`), invalid))
  }
  return tensors
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
