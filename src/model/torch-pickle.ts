// Reads the pickle of a PyTorch state dict as data: a stack machine that knows the dozen instructions torch.save uses and five names,
// and refuses every other. Nothing in the file is ever called (https://docs.python.org/3/library/pickletools.html names the opcodes).

import type { Invalid } from './zip-archive.ts'

/** A view of a storage: `torch._utils._rebuild_tensor_v2`. */
export interface PickledTensor {
  readonly storageKey: string
  /** `FloatStorage`, `BFloat16Storage`, … */
  readonly storageType: string
  /** Elements from the start of the storage. */
  readonly offset: number
  readonly shape: readonly number[]
  readonly strides: readonly number[]
}

class Global {
  readonly name: string
  constructor(name: string) {
    this.name = name
  }
}

class Storage {
  readonly type: string
  readonly key: string
  constructor(type: string, key: string) {
    this.type = type
    this.key = key
  }
}

class Tensor implements PickledTensor {
  readonly storageKey: string
  readonly storageType: string
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

const MARK = Symbol('mark')

type Value = string | number | boolean | null | readonly Value[] | Map<Value, Value> | Global | Storage | Tensor

const ORDERED_DICT = 'collections.OrderedDict'
const REBUILD_TENSOR = 'torch._utils._rebuild_tensor_v2'
const REBUILD_PARAMETER = 'torch._utils._rebuild_parameter'
const CALLABLES = new Set([ORDERED_DICT, REBUILD_TENSOR, REBUILD_PARAMETER])
const STORAGE = /^torch\.(\w+Storage)$/

/** Tensors by key, in file order. Throws `invalid` where the pickle is anything but a flat dictionary of tensors. */
export function readStateDict(pickle: Buffer, invalid: Invalid): ReadonlyMap<string, PickledTensor> {
  const value = new Machine(pickle, invalid).run()
  if (!(value instanceof Map)) throw invalid('it does not hold a dictionary of tensors')
  const tensors = new Map<string, PickledTensor>()
  for (const [key, tensor] of value) {
    if (typeof key !== 'string' || !(tensor instanceof Tensor)) throw invalid(`its entry ${String(key)} is not a tensor`)
    tensors.set(key, tensor)
  }
  return tensors
}

class Machine {
  readonly #pickle: Buffer
  readonly #stack: (Value | typeof MARK)[] = []
  readonly #memo = new Map<number, Value>()
  readonly #invalid: Invalid
  #at = 0

  constructor(pickle: Buffer, invalid: Invalid) {
    this.#pickle = pickle
    this.#invalid = invalid
  }

  run(): Value {
    for (;;) {
      const opcode = this.#byte()
      if (opcode === 0x2e) return this.#pop() // STOP
      this.#step(opcode)
    }
  }

  #step(opcode: number): void {
    const stack = this.#stack
    switch (opcode) {
      case 0x80: // PROTO
        this.#byte()
        return
      case 0x7d: // EMPTY_DICT
        stack.push(new Map())
        return
      case 0x29: // EMPTY_TUPLE
      case 0x5d: // EMPTY_LIST
        stack.push([])
        return
      case 0x28:
        stack.push(MARK)
        return
      case 0x4e: // NONE
        stack.push(null)
        return
      case 0x88: // NEWTRUE
      case 0x89: // NEWFALSE
        stack.push(opcode === 0x88)
        return
      case 0x4b: // BININT1
        stack.push(this.#byte())
        return
      case 0x4d: // BININT2
        stack.push(this.#bytes(2).readUInt16LE())
        return
      case 0x4a: // BININT
        stack.push(this.#bytes(4).readInt32LE())
        return
      case 0x8a: // LONG1
        stack.push(this.#long())
        return
      case 0x58: // BINUNICODE
        stack.push(this.#bytes(this.#bytes(4).readUInt32LE()).toString('utf8'))
        return
      case 0x71: // BINPUT
        this.#memo.set(this.#byte(), this.#top())
        return
      case 0x72: // LONG_BINPUT
        this.#memo.set(this.#bytes(4).readUInt32LE(), this.#top())
        return
      case 0x68: // BINGET
        stack.push(this.#recall(this.#byte()))
        return
      case 0x6a: // LONG_BINGET
        stack.push(this.#recall(this.#bytes(4).readUInt32LE()))
        return
      case 0x85: // TUPLE1
      case 0x86: // TUPLE2
      case 0x87: // TUPLE3
        stack.push(this.#popMany(opcode - 0x84))
        return
      case 0x74: // TUPLE
        stack.push(this.#popToMark())
        return
      case 0x63: // GLOBAL
        stack.push(this.#global(`${this.#line()}.${this.#line()}`))
        return
      case 0x51: // BINPERSID
        stack.push(storageOf(this.#pop(), this.#invalid))
        return
      case 0x52: // REDUCE
        stack.push(this.#reduce())
        return
      case 0x73: // SETITEM
        this.#setItems(this.#popMany(2))
        return
      case 0x75: // SETITEMS
        this.#setItems(this.#popToMark())
        return
      case 0x62: // BUILD: attributes of a module's state dict, such as its version
        this.#pop()
        if (!(this.#top() instanceof Map)) throw this.#invalid('it builds an object')
        return
      default:
        throw this.#invalid(`it uses the pickle instruction 0x${opcode.toString(16)}, which no dictionary of tensors needs`)
    }
  }

  #global(name: string): Global {
    if (!CALLABLES.has(name) && !STORAGE.test(name))
      throw this.#invalid(`it names ${name}, which is no part of a dictionary of tensors`)
    return new Global(name)
  }

  #reduce(): Value {
    const args = this.#pop()
    const callable = this.#pop()
    if (!(callable instanceof Global) || !Array.isArray(args)) throw this.#invalid('it calls something that is not a name')
    if (callable.name === ORDERED_DICT && args.length === 0) return new Map()
    if (callable.name === REBUILD_PARAMETER && args[0] instanceof Tensor) return args[0]
    if (callable.name === REBUILD_TENSOR) {
      const [storage, offset, shape, strides] = args as readonly Value[]
      if (
        storage instanceof Storage &&
        isSize(offset) &&
        isSizes(shape) &&
        isSizes(strides) &&
        shape.length === strides.length
      ) {
        return new Tensor(storage, offset, shape, strides)
      }
    }
    throw this.#invalid(`it calls ${callable.name} in a way no dictionary of tensors needs`)
  }

  #setItems(items: readonly Value[]): void {
    const target = this.#top()
    if (!(target instanceof Map) || items.length % 2 !== 0)
      throw this.#invalid('it sets items of something that is no dictionary')
    for (let i = 0; i < items.length; i += 2) target.set(items[i] as Value, items[i + 1] as Value)
  }

  #top(): Value {
    const value = this.#stack.at(-1)
    if (value === undefined || value === MARK) throw this.#invalid('its pickle is damaged')
    return value
  }

  #pop(): Value {
    const value = this.#top()
    this.#stack.pop()
    return value
  }

  #popMany(count: number): Value[] {
    return Array.from({ length: count }, () => this.#pop()).reverse()
  }

  #popToMark(): Value[] {
    const mark = this.#stack.lastIndexOf(MARK)
    if (mark === -1) throw this.#invalid('its pickle is damaged')
    return this.#stack.splice(mark).slice(1) as Value[]
  }

  #recall(index: number): Value {
    const value = this.#memo.get(index)
    if (value === undefined) throw this.#invalid('its pickle is damaged')
    return value
  }

  #long(): number {
    const bytes = this.#bytes(this.#byte())
    if (bytes.length > 6) throw this.#invalid('it holds an integer of more than 48 bits')
    return bytes.length === 0 ? 0 : bytes.readIntLE(0, bytes.length)
  }

  #line(): string {
    const end = this.#pickle.indexOf(0x0a, this.#at)
    if (end === -1) throw this.#invalid('its pickle is damaged')
    const line = this.#pickle.toString('utf8', this.#at, end)
    this.#at = end + 1
    return line
  }

  #byte(): number {
    return this.#bytes(1).readUInt8()
  }

  #bytes(count: number): Buffer {
    const bytes = this.#pickle.subarray(this.#at, this.#at + count)
    if (bytes.length < count) throw this.#invalid('its pickle is cut short')
    this.#at += count
    return bytes
  }
}

/** The persistent id of a tensor's data: ('storage', FloatStorage, key, location, number of elements). */
function storageOf(id: Value, invalid: Invalid): Storage {
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
