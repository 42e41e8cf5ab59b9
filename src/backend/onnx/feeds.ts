// Typed arrays that are reused from step to step and fed to onnxruntime without a copy.

import { Tensor } from 'onnxruntime-node'
import { invariant } from '../../core/invariant.ts'

/** Growth leaves room, so that a context growing token by token does not allocate each step. */
const GROWTH = 1.5

/** Named inputs of one run. Each name owns one buffer that grows and is overwritten by every step. */
export class Feeds {
  readonly #floats = new Map<string, Float32Array>()
  readonly #ints = new Map<string, Int32Array>()
  readonly #bools = new Map<string, Uint8Array>()
  readonly #longs = new Map<string, BigInt64Array>()
  #tensors: Record<string, Tensor> = {}

  /** Forgets the tensors, keeps the buffers. */
  clear(): void {
    this.#tensors = {}
  }

  /** A float buffer of exactly `dims` to be filled by the caller; holds old values. */
  float(name: string, dims: readonly number[]): Float32Array {
    const data = view(this.#floats, name, sizeOf(dims), (length) => new Float32Array(length))
    this.#tensors[name] = new Tensor('float32', data, dims)
    return data
  }

  int(name: string, dims: readonly number[]): Int32Array {
    const data = view(this.#ints, name, sizeOf(dims), (length) => new Int32Array(length))
    this.#tensors[name] = new Tensor('int32', data, dims)
    return data
  }

  bool(name: string, dims: readonly number[]): Uint8Array {
    const data = view(this.#bools, name, sizeOf(dims), (length) => new Uint8Array(length))
    this.#tensors[name] = new Tensor('bool', data, dims)
    return data
  }

  /** 64-bit indices, written as pairs of 32-bit words: a BigInt costs an allocation each. Little-endian; values below 2^31. */
  long(name: string, dims: readonly number[]): Int32Array {
    const data = view(this.#longs, name, sizeOf(dims), (length) => new BigInt64Array(length))
    this.#tensors[name] = new Tensor('int64', data, dims)
    return new Int32Array(data.buffer, data.byteOffset, data.length * 2)
  }

  /** A tensor that lives elsewhere. */
  tensor(name: string, tensor: Tensor): void {
    this.#tensors[name] = tensor
  }

  /** The feeds that a graph asks for. */
  select(inputNames: readonly string[]): Record<string, Tensor> {
    const selected: Record<string, Tensor> = {}
    for (const name of inputNames) {
      const tensor = this.#tensors[name]
      invariant(tensor !== undefined, `graph input ${name} is fed`)
      selected[name] = tensor
    }
    return selected
  }
}

function view<A extends { length: number; subarray(start: number, end: number): A }>(
  buffers: Map<string, A>,
  name: string,
  length: number,
  allocate: (length: number) => A,
): A {
  let buffer = buffers.get(name)
  if (buffer === undefined || buffer.length < length) {
    buffer = allocate(Math.ceil(length * GROWTH))
    buffers.set(name, buffer)
  }
  return buffer.subarray(0, length)
}

function sizeOf(dims: readonly number[]): number {
  return dims.reduce((product, dim) => product * dim, 1)
}
