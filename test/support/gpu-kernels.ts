// One kernel at a time on the GPU, for comparing with float64 arithmetic on the host.

import type { DeviceBuffer } from '../../src/backend/cuda/buffer.ts'
import { Device } from '../../src/backend/cuda/device.ts'
import { type CudaDtype, DTYPES } from '../../src/backend/cuda/dtype.ts'
import { type Grid, KernelModule, type ParamWriter } from '../../src/backend/cuda/module.ts'
import { Stream } from '../../src/backend/cuda/stream.ts'
import { Uploader } from '../../src/backend/cuda/uploader.ts'
import { bf16ToF32, f16ToF32 } from '../../src/core/half.ts'

/** Written over outputs before each run: what a kernel leaves out stays visible. */
const POISON = 0xff

export class KernelBench implements Disposable {
  readonly device = Device.open()
  readonly #kernels = KernelModule.load(this.device)
  readonly #stream = new Stream(this.device)
  readonly #uploader: Uploader
  readonly #dtype: CudaDtype
  readonly #buffers: DeviceBuffer[] = []

  constructor(dtype: CudaDtype) {
    this.#dtype = dtype
    this.#uploader = new Uploader(this.device, this.#kernels, dtype)
  }

  /** Elements of the kernel's type. */
  elements(source: Float32Array): number {
    const target = this.#allocate(source.length * DTYPES[this.#dtype].numBytes)
    const copy = { source, numRows: 1, numColumns: source.length, target, ldOut: source.length }
    this.#uploader.finish(this.#uploader.copyPacked({ ...copy, isTransposed: false, scale: 1, rowScale: null }))
    return target
  }

  /** Words as they are. */
  words(source: Float32Array | Int32Array | BigUint64Array): number {
    const target = this.#allocate(source.byteLength)
    this.#uploader.finish(this.#uploader.copyBytes(new Uint8Array(source.buffer, source.byteOffset, source.byteLength), target))
    return target
  }

  poisoned(numBytes: number): number {
    const target = this.#allocate(numBytes)
    this.device.check(this.device.driver.cuMemsetD8Async(target, POISON, numBytes, this.#uploader.stream.handle), 'poisoning')
    return target
  }

  run(name: string, grid: Grid, threads: number, fill: (params: ParamWriter) => void, isTyped = true): void {
    this.#uploader.stream.synchronize()
    fill(this.#kernels.params())
    this.#kernels.launch(this.#stream, isTyped ? `${name}_${DTYPES[this.#dtype].suffix}` : name, grid, [threads])
    this.#stream.synchronize()
  }

  readElements(address: number, count: number): Float32Array {
    const { numBytes } = DTYPES[this.#dtype]
    const bytes = this.#read(address, count * numBytes)
    if (this.#dtype === 'float32') return new Float32Array(bytes)
    const values = new Float32Array(count)
    const convert = this.#dtype === 'bfloat16' ? bf16ToF32 : f16ToF32
    convert(new Uint16Array(bytes), values)
    return values
  }

  readFloats(address: number, count: number): Float32Array {
    return new Float32Array(this.#read(address, count * Float32Array.BYTES_PER_ELEMENT))
  }

  readInts(address: number, count: number): Int32Array {
    return new Int32Array(this.#read(address, count * Int32Array.BYTES_PER_ELEMENT))
  }

  [Symbol.dispose](): void {
    for (const each of [...this.#buffers, this.#uploader, this.#stream, this.#kernels, this.device]) each[Symbol.dispose]()
  }

  #read(address: number, numBytes: number): ArrayBuffer {
    const pinned = this.device.allocatePinned(numBytes)
    this.#stream.download(pinned.address, address, numBytes)
    this.#stream.synchronize()
    const copy = pinned.bytes.slice(0)
    pinned[Symbol.dispose]()
    return copy
  }

  #allocate(numBytes: number): number {
    const buffer = this.device.allocate(numBytes, 'a test')
    this.#buffers.push(buffer)
    return buffer.address
  }
}

/** As the kernels see a value of this type. */
export function rounded(dtype: CudaDtype, values: Float32Array): Float32Array {
  if (dtype === 'float32') return values
  if (dtype === 'float16') return values.map(roundHalf)
  const words = new Uint32Array(values.slice().buffer)
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!
    words[i] = ((word + 0x7fff + ((word >>> 16) & 1)) & 0xffff_0000) >>> 0
  }
  return new Float32Array(words.buffer)
}

/** To eleven bits; test values are neither subnormal nor beyond the range. */
function roundHalf(value: number): number {
  if (value === 0) return 0
  const step = 2 ** (Math.floor(Math.log2(Math.abs(value))) - 10)
  const ratio = value / step
  const floor = Math.floor(ratio)
  const rest = ratio - floor
  const isUp = rest > 0.5 || (rest === 0.5 && floor % 2 !== 0)
  return (isUp ? floor + 1 : floor) * step
}
