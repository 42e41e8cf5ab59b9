// Reads the pickle of a PyTorch state dict as data: a stack machine that knows the instructions torch.save uses and the names of
// torch-values.ts, and refuses every other. Nothing in the file is ever called (https://docs.python.org/3/library/pickletools.html names the opcodes).

import { build, call, nameGlobal, PickledTensor, storageOf, type Value } from './torch-values.ts'
import type { Invalid } from './zip-archive.ts'

const MARK = Symbol('mark')

/** Tensors by key, in file order. Throws `invalid` where the pickle is anything but a flat dictionary of tensors. */
export function readStateDict(pickle: Buffer, invalid: Invalid): ReadonlyMap<string, PickledTensor> {
  const value = new Machine(pickle, invalid).run()
  if (!(value instanceof Map)) throw invalid('it does not hold a dictionary of tensors')
  const tensors = new Map<string, PickledTensor>()
  for (const [key, tensor] of value) {
    if (typeof key !== 'string' || !(tensor instanceof PickledTensor)) throw invalid(`its entry ${String(key)} is not a tensor`)
    tensors.set(key, tensor)
  }
  return tensors
}

/** What the file holds, nested as it is. Throws `invalid` where that is not data. */
export function readPickle(pickle: Buffer, invalid: Invalid): Value {
  return new Machine(pickle, invalid).run()
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
      case 0x47: // BINFLOAT
        stack.push(this.#bytes(8).readDoubleBE())
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
        stack.push(nameGlobal(`${this.#line()}.${this.#line()}`, this.#invalid))
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
      case 0x62: // BUILD
        this.#build()
        return
      case 0x61: // APPEND
        this.#append(this.#popMany(1))
        return
      case 0x65: // APPENDS
        this.#append(this.#popToMark())
        return
      default:
        throw this.#invalid(`it uses the pickle instruction 0x${opcode.toString(16)}, which no dictionary of tensors needs`)
    }
  }

  #reduce(): Value {
    const args = this.#pop()
    return call(this.#pop(), args, this.#invalid)
  }

  #build(): void {
    const state = this.#pop()
    build(this.#top(), state, this.#invalid)
  }

  #append(items: readonly Value[]): void {
    const target = this.#top()
    if (!Array.isArray(target)) throw this.#invalid('it appends to something that is no list')
    for (const item of items) target.push(item)
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
