// Host arrays to device memory through pinned staging, on a stream of their own, converted and transposed on the device.

import { invariant } from '../../core/invariant.ts'
import type { DeviceBuffer, PinnedBuffer } from './buffer.ts'
import type { Device } from './device.ts'
import { type CudaDtype, DTYPES } from './dtype.ts'
import type { KernelModule } from './module.ts'
import { DeviceEvent, Stream } from './stream.ts'

/** Each of two halves: one is filled while the other travels. Large enough for a row of any embedding, transposed. */
const STAGING_BYTES = 8 << 20
const TILE = 32

/** A float32 matrix that becomes elements of the backend's type. */
export interface PackedCopy {
  readonly source: Float32Array // [numRows, numColumns]
  readonly numRows: number
  readonly numColumns: number
  readonly target: number
  /** Elements from one row of the target to the next. */
  readonly ldOut: number
  readonly isTransposed: boolean
  readonly scale: number
  /** [numRows] */
  readonly rowScale: Float32Array | null
}

interface Half {
  readonly pinned: PinnedBuffer
  readonly device: DeviceBuffer
  readonly isFree: DeviceEvent
}

export class Uploader implements Disposable {
  readonly stream: Stream
  readonly #kernels: KernelModule
  readonly #dtype: CudaDtype
  readonly #halves: readonly Half[]
  #turn = 0

  constructor(device: Device, kernels: KernelModule, dtype: CudaDtype) {
    this.stream = new Stream(device)
    this.#kernels = kernels
    this.#dtype = dtype
    this.#halves = [0, 1].map(() => ({
      pinned: device.allocatePinned(STAGING_BYTES),
      device: device.allocate(STAGING_BYTES, 'staging buffers'),
      isFree: new DeviceEvent(device),
    }))
  }

  /** Bytes as they are. */
  *copyBytes(source: Uint8Array, target: number): Generator<number, void> {
    for (let start = 0; start < source.length; start += STAGING_BYTES) {
      const chunk = source.subarray(start, start + STAGING_BYTES)
      const half = this.#take()
      new Uint8Array(half.pinned.bytes).set(chunk)
      this.stream.upload(target + start, half.pinned.address, chunk.length)
      half.isFree.record(this.stream)
      yield chunk.length
    }
  }

  /** Fills staging memory by `fill`, piece by piece, for bytes that need not pass through an array of ours. */
  copyFrom(numBytes: number, target: number, fill: (into: Uint8Array, start: number) => void): void {
    for (let start = 0; start < numBytes; start += STAGING_BYTES) {
      const length = Math.min(STAGING_BYTES, numBytes - start)
      const half = this.#take()
      fill(new Uint8Array(half.pinned.bytes, 0, length), start)
      this.stream.upload(target + start, half.pinned.address, length)
      half.isFree.record(this.stream)
    }
  }

  /** Yields the source bytes of each piece, so that a copy can be spread over steps. */
  *copyPacked(copy: PackedCopy): Generator<number, void> {
    const { source, numRows, numColumns, rowScale } = copy
    const scaleBytes = rowScale === null ? 0 : Float32Array.BYTES_PER_ELEMENT
    const rowBytes = numColumns * Float32Array.BYTES_PER_ELEMENT + scaleBytes
    const rowsPerChunk = Math.floor(STAGING_BYTES / rowBytes)
    invariant(rowsPerChunk > 0, 'a row fits the staging buffer')
    for (let row = 0; row < numRows; row += rowsPerChunk) {
      const count = Math.min(rowsPerChunk, numRows - row)
      const half = this.#take()
      const staging = new Float32Array(half.pinned.bytes)
      staging.set(source.subarray(row * numColumns, (row + count) * numColumns))
      if (rowScale !== null) staging.set(rowScale.subarray(row, row + count), count * numColumns)
      this.stream.upload(half.device.address, half.pinned.address, count * rowBytes)
      this.#pack(copy, half, row, count)
      half.isFree.record(this.stream)
      yield count * rowBytes
    }
  }

  /** Runs a copy to its end. */
  finish(copy: Generator<number, void>): void {
    while (copy.next().done !== true);
  }

  [Symbol.dispose](): void {
    this.stream.synchronize()
    for (const { pinned, device, isFree } of this.#halves) {
      pinned[Symbol.dispose]()
      device[Symbol.dispose]()
      isFree[Symbol.dispose]()
    }
    this.stream[Symbol.dispose]()
  }

  #pack(copy: PackedCopy, half: Half, row: number, count: number): void {
    const { numBytes, suffix } = DTYPES[this.#dtype]
    const { numColumns, ldOut, isTransposed } = copy
    const { address } = half.device
    const scales = copy.rowScale === null ? 0 : address + count * numColumns * Float32Array.BYTES_PER_ELEMENT
    const target = copy.target + (isTransposed ? row : row * ldOut) * numBytes
    const params = this.#kernels.params().pointer(address).pointer(target).pointer(scales)
    params
      .long(count)
      .long(numColumns)
      .long(ldOut)
      .float(copy.scale)
      .int(isTransposed ? 1 : 0)
    const grid = [Math.ceil(numColumns / TILE), Math.ceil(count / TILE)] as const
    this.#kernels.launch(this.stream, `pack_${suffix}`, grid, [TILE, 8])
  }

  /** The next half, once what it last carried has arrived. */
  #take(): Half {
    const half = this.#halves[this.#turn] as Half
    this.#turn = 1 - this.#turn
    half.isFree.synchronize()
    return half
  }
}
