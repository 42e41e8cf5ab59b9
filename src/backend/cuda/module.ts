// The compiled kernels: found on disk, loaded once, launched with one structure of parameters each.

import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { invariant } from '../../core/invariant.ts'
import { LorikeetError } from '../../errors.ts'
import type { Device } from './device.ts'
import { addressOf } from './driver.ts'
import type { Stream } from './stream.ts'

/** Largest structure of any kernel. */
const MAX_PARAM_BYTES = 512

/** A block gets more shared memory than this only when asked for by name. */
const DEFAULT_SHARED_BYTES = 48 << 10
/** CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES. */
const MAX_SHARED_ATTRIBUTE = 8

export type Grid = readonly [x: number, y?: number, z?: number]

/** Fields in the order of the kernel's structure, each on its natural boundary. */
export class ParamWriter {
  readonly #view = new DataView(new ArrayBuffer(MAX_PARAM_BYTES))
  #end = 0
  /** What cuLaunchKernel takes: the address of each parameter, of which there is one. */
  readonly pointers = BigUint64Array.of(addressOf(new Uint8Array(this.#view.buffer)))

  clear(): this {
    this.#end = 0
    return this
  }

  /** A device address; 0 is null. */
  pointer(address: number): this {
    this.#align(8)
    this.#view.setUint32(this.#end, address % 2 ** 32, true)
    this.#view.setUint32(this.#end + 4, Math.floor(address / 2 ** 32), true)
    this.#end += 8
    return this
  }

  long(value: number): this {
    return this.pointer(value)
  }

  int(value: number): this {
    this.#align(4)
    this.#view.setInt32(this.#end, value, true)
    this.#end += 4
    return this
  }

  float(value: number): this {
    this.#align(4)
    this.#view.setFloat32(this.#end, value, true)
    this.#end += 4
    return this
  }

  ints(values: readonly number[], count: number): this {
    for (let i = 0; i < count; i++) this.int(values[i] ?? 0)
    return this
  }

  #align(size: number): void {
    this.#end = Math.ceil(this.#end / size) * size
  }
}

export class KernelModule implements Disposable {
  readonly #device: Device
  readonly #modules: readonly number[]
  readonly #kernels = new Map<string, number>()
  readonly #sharedBytes = new Map<string, number>()
  readonly #params = new ParamWriter()

  private constructor(device: Device, modules: readonly number[]) {
    this.#device = device
    this.#modules = modules
  }

  /** Throws BACKEND_UNAVAILABLE when the kernels were never built, BACKEND_FAILED when the driver does not take them. */
  static load(device: Device): KernelModule {
    const folder = findKernels()
    const modules = readdirSync(folder)
      .filter((name) => name.endsWith('.fatbin'))
      .map((name) => {
        const module = new BigUint64Array(1)
        const status = device.driver.cuModuleLoadData(module, readFileSync(join(folder, name)))
        device.check(status, `loading the kernels in ${name} on compute capability ${device.facts.capability}`)
        return Number(module[0])
      })
    return new KernelModule(device, modules)
  }

  /** An empty structure; fill it before `launch`, which copies it. */
  params(): ParamWriter {
    return this.#params.clear()
  }

  launch(stream: Stream, name: string, grid: Grid, block: Grid, sharedBytes = 0): void {
    const kernel = this.#find(name, sharedBytes)
    const { driver } = this.#device
    const [gridX, gridY = 1, gridZ = 1] = grid
    const [blockX, blockY = 1, blockZ = 1] = block
    if (gridX === 0 || gridY === 0 || gridZ === 0) return
    const { pointers } = this.#params
    const status = driver.cuLaunchKernel(
      kernel,
      gridX,
      gridY,
      gridZ,
      blockX,
      blockY,
      blockZ,
      sharedBytes,
      stream.handle,
      pointers,
      null,
    )
    if (status !== 0) this.#device.check(status, `launching ${name}`)
  }

  [Symbol.dispose](): void {
    for (const module of this.#modules) this.#device.driver.cuModuleUnload(module)
  }

  #find(name: string, sharedBytes: number): number {
    const kernel = this.#kernels.get(name) ?? this.#lookUp(name)
    if (sharedBytes > DEFAULT_SHARED_BYTES && sharedBytes > (this.#sharedBytes.get(name) ?? 0)) {
      const status = this.#device.driver.cuFuncSetAttribute(kernel, MAX_SHARED_ATTRIBUTE, sharedBytes)
      this.#device.check(status, `giving ${name} ${sharedBytes} bytes of shared memory`)
      this.#sharedBytes.set(name, sharedBytes)
    }
    return kernel
  }

  #lookUp(name: string): number {
    const kernel = new BigUint64Array(1)
    for (const module of this.#modules) {
      if (this.#device.driver.cuModuleGetFunction(kernel, module, name) !== 0) continue
      this.#kernels.set(name, Number(kernel[0]))
      return Number(kernel[0])
    }
    invariant(false, `there is a kernel ${name}`)
  }
}

/** Beside this file in a build; under dist when the sources run. */
function findKernels(): string {
  const here = import.meta.dirname
  const folders = [join(here, 'kernels'), join(here, '../../../dist/backend/cuda/kernels')]
  const folder = folders.find((path) => existsSync(path) && readdirSync(path).some((name) => name.endsWith('.fatbin')))
  if (folder !== undefined) return folder
  const reason = 'the CUDA kernels are not built; run npm run build:kernels (it needs nvcc and no GPU)'
  throw new LorikeetError('BACKEND_UNAVAILABLE', { backend: 'cuda', reason })
}
