// Native memory with one owner, freed once; a use after that is an error and not a fault of the device.

import { invariant } from '../../core/invariant.ts'
import { checkDriver } from './check.ts'
import { type Driver, viewOf } from './driver.ts'

export class DeviceBuffer implements Disposable {
  readonly numBytes: number
  readonly #driver: Driver
  #address: number | null

  constructor(driver: Driver, address: number, numBytes: number) {
    this.#driver = driver
    this.#address = address
    this.numBytes = numBytes
  }

  /** Device address; throws after the buffer was freed. */
  get address(): number {
    invariant(this.#address !== null, 'device memory is used before it is freed')
    return this.#address
  }

  [Symbol.dispose](): void {
    if (this.#address === null) return
    const address = this.#address
    this.#address = null
    checkDriver(this.#driver, this.#driver.cuMemFree_v2(address), 'freeing device memory')
  }
}

/** Host memory the device copies from and to without a detour, as an array buffer. */
export class PinnedBuffer implements Disposable {
  readonly numBytes: number
  readonly #driver: Driver
  #memory: { readonly address: number; readonly bytes: ArrayBuffer } | null

  constructor(driver: Driver, address: number, numBytes: number) {
    this.#driver = driver
    this.#memory = { address, bytes: viewOf(address, numBytes) }
    this.numBytes = numBytes
  }

  get address(): number {
    return this.#alive().address
  }

  get bytes(): ArrayBuffer {
    return this.#alive().bytes
  }

  [Symbol.dispose](): void {
    if (this.#memory === null) return
    const { address } = this.#memory
    this.#memory = null
    checkDriver(this.#driver, this.#driver.cuMemFreeHost(address), 'freeing pinned memory')
  }

  #alive(): { readonly address: number; readonly bytes: ArrayBuffer } {
    invariant(this.#memory !== null, 'pinned memory is used before it is freed')
    return this.#memory
  }
}
