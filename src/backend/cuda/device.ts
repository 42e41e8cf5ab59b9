// One GPU: found, checked, its context current on this thread.

import { LorikeetError } from '../../errors.ts'
import { DeviceBuffer, PinnedBuffer } from './buffer.ts'
import { checkDriver, describeStatus } from './check.ts'
import { type Driver, openDriver } from './driver.ts'

/** CUDA_ERROR_OUT_OF_MEMORY. */
const OUT_OF_MEMORY = 2

const ATTRIBUTE = { numMultiprocessors: 16, majorCapability: 75, minorCapability: 76 } as const

/** Ampere: bf16 tensor cores, which every kernel relies on. */
const MIN_CAPABILITY = 8

/** CUDA 12 is the oldest whose fat binaries and cuBLASLt this backend is built for; the driver reports 1000 · major + 10 · minor. */
const MIN_DRIVER_VERSION = 12_000

export interface DeviceFacts {
  readonly name: string
  readonly capability: string
  readonly numMultiprocessors: number
  readonly driverVersion: string
}

export class Device implements Disposable {
  readonly driver: Driver
  readonly facts: DeviceFacts
  readonly #ordinal: number
  #isReleased = false

  private constructor(driver: Driver, ordinal: number, facts: DeviceFacts) {
    this.driver = driver
    this.#ordinal = ordinal
    this.facts = facts
  }

  /** Throws BACKEND_UNAVAILABLE saying what to do where there is no driver, no GPU, or one too old. */
  static open(ordinal = 0): Device {
    const driver = openDriver()
    const started = driver.cuInit(0)
    if (started !== 0) throw unavailable(`${describeStatus(driver, started)}; check that nvidia-smi lists a GPU`)
    const facts = readFacts(driver, ordinal)
    const context = new BigUint64Array(1)
    checkDriver(driver, driver.cuDevicePrimaryCtxRetain(context, ordinal), 'opening the GPU')
    checkDriver(driver, driver.cuCtxSetCurrent(Number(context[0])), 'using the GPU')
    return new Device(driver, ordinal, facts)
  }

  check(status: number, what: string): void {
    checkDriver(this.driver, status, what)
  }

  freeBytes(): number {
    const free = new BigUint64Array(1)
    this.check(this.driver.cuMemGetInfo_v2(free, new BigUint64Array(1)), 'asking for free memory')
    return Number(free[0])
  }

  /** Throws CONFIG_INVALID, naming what the memory is for, when the GPU has too little. */
  allocate(numBytes: number, purpose: string): DeviceBuffer {
    const buffer = this.tryAllocate(numBytes)
    if (buffer !== null) return buffer
    const gib = (bytes: number) => `${(bytes / 2 ** 30).toFixed(2)} GiB`
    const reason = `${purpose} need ${gib(numBytes)} and the GPU has ${gib(this.freeBytes())} left; lower --kv-cache-bytes, --adapter-device-bytes or --max-num-batched-tokens`
    throw new LorikeetError('CONFIG_INVALID', { option: '--backend cuda', reason })
  }

  tryAllocate(numBytes: number): DeviceBuffer | null {
    const address = new BigUint64Array(1)
    const status = this.driver.cuMemAlloc_v2(address, Math.max(1, numBytes))
    if (status === OUT_OF_MEMORY) return null
    this.check(status, `allocating ${numBytes} bytes`)
    return new DeviceBuffer(this.driver, Number(address[0]), numBytes)
  }

  allocatePinned(numBytes: number): PinnedBuffer {
    const address = new BigUint64Array(1)
    this.check(this.driver.cuMemHostAlloc(address, numBytes, 0), `pinning ${numBytes} bytes of host memory`)
    return new PinnedBuffer(this.driver, Number(address[0]), numBytes)
  }

  [Symbol.dispose](): void {
    if (this.#isReleased) return
    this.#isReleased = true
    this.driver.cuDevicePrimaryCtxRelease_v2(this.#ordinal)
  }
}

function readFacts(driver: Driver, ordinal: number): DeviceFacts {
  const count = new Int32Array(1)
  checkDriver(driver, driver.cuDeviceGetCount(count), 'counting GPUs')
  if ((count[0] as number) <= ordinal) throw unavailable('the driver lists no GPU; check CUDA_VISIBLE_DEVICES')
  const version = new Int32Array(1)
  checkDriver(driver, driver.cuDriverGetVersion(version), 'asking for the driver version')
  const found = version[0] as number
  const shown = `${Math.floor(found / 1000)}.${(found % 1000) / 10}`
  if (found < MIN_DRIVER_VERSION) {
    throw unavailable(`the NVIDIA driver supports CUDA ${shown} and 12.0 is needed; update the driver to 525 or later`)
  }
  const name = new Uint8Array(256)
  checkDriver(driver, driver.cuDeviceGetName(name, name.length, ordinal), 'asking for the name of the GPU')
  const attribute = (which: keyof typeof ATTRIBUTE): number => {
    const value = new Int32Array(1)
    checkDriver(driver, driver.cuDeviceGetAttribute(value, ATTRIBUTE[which], ordinal), `asking for ${which}`)
    return value[0] as number
  }
  const major = attribute('majorCapability')
  const capability = `${major}.${attribute('minorCapability')}`
  const text = Buffer.from(name.subarray(0, name.indexOf(0))).toString()
  if (major < MIN_CAPABILITY) {
    throw unavailable(`${text} has compute capability ${capability} and 8.0 (Ampere) is needed; use --backend onnx`)
  }
  return { name: text, capability, numMultiprocessors: attribute('numMultiprocessors'), driverVersion: shown }
}

function unavailable(reason: string): LorikeetError {
  return new LorikeetError('BACKEND_UNAVAILABLE', { backend: 'cuda', reason })
}
