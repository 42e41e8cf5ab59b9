// Queues of device work, marks in them, and recorded runs of them.

import { invariant } from '../../core/invariant.ts'
import type { Device } from './device.ts'

/** CU_STREAM_NON_BLOCKING: no order with the default stream. */
const NON_BLOCKING = 1
/** CU_EVENT_DISABLE_TIMING: an event for order alone is cheaper. */
const DISABLE_TIMING = 2
/** CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads of the process may use the driver meanwhile. */
const CAPTURE_THREAD_LOCAL = 1
/** CUDA_ERROR_NOT_READY. */
const NOT_READY = 600

export class Stream implements Disposable {
  readonly device: Device
  readonly handle: number

  constructor(device: Device) {
    const handle = new BigUint64Array(1)
    device.check(device.driver.cuStreamCreate(handle, NON_BLOCKING), 'creating a stream')
    this.device = device
    this.handle = Number(handle[0])
  }

  /** Blocks this thread until everything queued is done; a fault of a kernel comes out here. */
  synchronize(): void {
    this.device.check(this.device.driver.cuStreamSynchronize(this.handle), 'running a step on the GPU')
  }

  waitFor(event: DeviceEvent): void {
    this.device.check(this.device.driver.cuStreamWaitEvent(this.handle, event.handle, 0), 'ordering two streams')
  }

  upload(target: number, source: number, numBytes: number): void {
    const { device } = this
    device.check(device.driver.cuMemcpyHtoDAsync_v2(target, source, numBytes, this.handle), 'copying to the GPU')
  }

  download(target: number, source: number, numBytes: number): void {
    const { device } = this
    device.check(device.driver.cuMemcpyDtoHAsync_v2(target, source, numBytes, this.handle), 'copying from the GPU')
  }

  clear(target: number, numBytes: number): void {
    this.device.check(this.device.driver.cuMemsetD8Async(target, 0, numBytes, this.handle), 'clearing device memory')
  }

  /** Records what `work` queues, on this stream and those that wait for it, instead of running it. */
  capture(work: () => void): Graph {
    const { device } = this
    const { driver } = device
    device.check(driver.cuStreamBeginCapture_v2(this.handle, CAPTURE_THREAD_LOCAL), 'beginning a graph')
    const graph = new BigUint64Array(1)
    try {
      work()
    } finally {
      device.check(driver.cuStreamEndCapture(this.handle, graph), 'ending a graph')
    }
    const executable = new BigUint64Array(1)
    device.check(driver.cuGraphInstantiateWithFlags(executable, Number(graph[0]), 0n), 'making a graph runnable')
    device.check(driver.cuGraphDestroy(Number(graph[0])), 'freeing a recorded graph')
    return new Graph(device, Number(executable[0]))
  }

  [Symbol.dispose](): void {
    this.device.driver.cuStreamDestroy_v2(this.handle)
  }
}

export class DeviceEvent implements Disposable {
  readonly #device: Device
  readonly handle: number

  constructor(device: Device, options: { readonly isTimed: boolean } = { isTimed: false }) {
    const handle = new BigUint64Array(1)
    device.check(device.driver.cuEventCreate(handle, options.isTimed ? 0 : DISABLE_TIMING), 'creating an event')
    this.#device = device
    this.handle = Number(handle[0])
  }

  record(stream: Stream): void {
    this.#device.check(this.#device.driver.cuEventRecord(this.handle, stream.handle), 'recording an event')
  }

  get isReached(): boolean {
    const status = this.#device.driver.cuEventQuery(this.handle)
    if (status === NOT_READY) return false
    this.#device.check(status, 'asking for an event')
    return true
  }

  synchronize(): void {
    this.#device.check(this.#device.driver.cuEventSynchronize(this.handle), 'waiting for the GPU')
  }

  /** Milliseconds of device time; both events timed and reached. */
  since(start: DeviceEvent): number {
    const elapsed = new Float32Array(1)
    this.#device.check(this.#device.driver.cuEventElapsedTime(elapsed, start.handle, this.handle), 'reading device time')
    return elapsed[0] as number
  }

  [Symbol.dispose](): void {
    this.#device.driver.cuEventDestroy_v2(this.handle)
  }
}

export class Graph implements Disposable {
  readonly #device: Device
  #executable: number | null

  constructor(device: Device, executable: number) {
    this.#device = device
    this.#executable = executable
  }

  launch(stream: Stream): void {
    invariant(this.#executable !== null, 'a graph is launched before it is freed')
    this.#device.check(this.#device.driver.cuGraphLaunch(this.#executable, stream.handle), 'launching a graph')
  }

  [Symbol.dispose](): void {
    if (this.#executable === null) return
    this.#device.driver.cuGraphExecDestroy(this.#executable)
    this.#executable = null
  }
}
