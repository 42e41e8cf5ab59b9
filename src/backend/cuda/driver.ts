// The CUDA driver API as this backend uses it: declarations only. Handles and device addresses are plain numbers, since user
// space has 47 bits of them; arrays are passed by address, and an output handle is written to a one-element array.

import koffi from 'koffi'
import { LorikeetError } from '../../errors.ts'

/** CUresult; 0 is success. */
export type Status = number

export interface Driver {
  cuInit(flags: number): Status
  cuDriverGetVersion(version: Int32Array): Status
  cuGetErrorName(status: Status, name: [string | null]): Status
  cuGetErrorString(status: Status, text: [string | null]): Status
  cuDeviceGetCount(count: Int32Array): Status
  cuDeviceGet(device: Int32Array, ordinal: number): Status
  cuDeviceGetName(name: Uint8Array, length: number, device: number): Status
  cuDeviceGetAttribute(value: Int32Array, attribute: number, device: number): Status
  cuDevicePrimaryCtxRetain(context: BigUint64Array, device: number): Status
  cuDevicePrimaryCtxRelease_v2(device: number): Status
  cuCtxSetCurrent(context: number): Status
  cuMemGetInfo_v2(free: BigUint64Array, total: BigUint64Array): Status
  cuMemAlloc_v2(address: BigUint64Array, numBytes: number): Status
  cuMemFree_v2(address: number): Status
  cuMemHostAlloc(address: BigUint64Array, numBytes: number, flags: number): Status
  cuMemFreeHost(address: number): Status
  cuMemsetD8Async(address: number, value: number, numBytes: number, stream: number): Status
  cuMemcpyHtoDAsync_v2(target: number, source: number, numBytes: number, stream: number): Status
  cuMemcpyDtoHAsync_v2(target: number, source: number, numBytes: number, stream: number): Status
  cuModuleLoadData(module: BigUint64Array, image: Uint8Array): Status
  cuModuleUnload(module: number): Status
  cuModuleGetFunction(kernel: BigUint64Array, module: number, name: string): Status
  cuFuncSetAttribute(kernel: number, attribute: number, value: number): Status
  cuLaunchKernel(
    kernel: number,
    gridX: number,
    gridY: number,
    gridZ: number,
    blockX: number,
    blockY: number,
    blockZ: number,
    sharedBytes: number,
    stream: number,
    params: BigUint64Array,
    extra: null,
  ): Status
  cuStreamCreate(stream: BigUint64Array, flags: number): Status
  cuStreamDestroy_v2(stream: number): Status
  cuStreamSynchronize(stream: number): Status
  cuStreamWaitEvent(stream: number, event: number, flags: number): Status
  cuStreamBeginCapture_v2(stream: number, mode: number): Status
  cuStreamEndCapture(stream: number, graph: BigUint64Array): Status
  cuEventCreate(event: BigUint64Array, flags: number): Status
  cuEventDestroy_v2(event: number): Status
  cuEventRecord(event: number, stream: number): Status
  cuEventQuery(event: number): Status
  cuEventSynchronize(event: number): Status
  cuEventElapsedTime(milliseconds: Float32Array, start: number, end: number): Status
  cuGraphInstantiateWithFlags(executable: BigUint64Array, graph: number, flags: bigint): Status
  cuGraphLaunch(executable: number, stream: number): Status
  cuGraphExecDestroy(executable: number): Status
  cuGraphDestroy(graph: number): Status
}

const SIGNATURES: Readonly<Record<keyof Driver, string>> = {
  cuInit: 'uint flags',
  cuDriverGetVersion: 'void *version',
  cuGetErrorName: 'int status, _Out_ const char **name',
  cuGetErrorString: 'int status, _Out_ const char **text',
  cuDeviceGetCount: 'void *count',
  cuDeviceGet: 'void *device, int ordinal',
  cuDeviceGetName: 'void *name, int length, int device',
  cuDeviceGetAttribute: 'void *value, int attribute, int device',
  cuDevicePrimaryCtxRetain: 'void *context, int device',
  cuDevicePrimaryCtxRelease_v2: 'int device',
  cuCtxSetCurrent: 'uint64_t context',
  cuMemGetInfo_v2: 'void *free, void *total',
  cuMemAlloc_v2: 'void *address, size_t numBytes',
  cuMemFree_v2: 'uint64_t address',
  cuMemHostAlloc: 'void *address, size_t numBytes, uint flags',
  cuMemFreeHost: 'uint64_t address',
  cuMemsetD8Async: 'uint64_t address, uint8_t value, size_t numBytes, uint64_t stream',
  cuMemcpyHtoDAsync_v2: 'uint64_t target, uint64_t source, size_t numBytes, uint64_t stream',
  cuMemcpyDtoHAsync_v2: 'uint64_t target, uint64_t source, size_t numBytes, uint64_t stream',
  cuModuleLoadData: 'void *module, void *image',
  cuModuleUnload: 'uint64_t module',
  cuModuleGetFunction: 'void *kernel, uint64_t module, const char *name',
  cuFuncSetAttribute: 'uint64_t kernel, int attribute, int value',
  cuLaunchKernel:
    'uint64_t kernel, uint gx, uint gy, uint gz, uint bx, uint by, uint bz, uint sharedBytes, uint64_t stream, void *params, void *extra',
  cuStreamCreate: 'void *stream, uint flags',
  cuStreamDestroy_v2: 'uint64_t stream',
  cuStreamSynchronize: 'uint64_t stream',
  cuStreamWaitEvent: 'uint64_t stream, uint64_t event, uint flags',
  cuStreamBeginCapture_v2: 'uint64_t stream, int mode',
  cuStreamEndCapture: 'uint64_t stream, void *graph',
  cuEventCreate: 'void *event, uint flags',
  cuEventDestroy_v2: 'uint64_t event',
  cuEventRecord: 'uint64_t event, uint64_t stream',
  cuEventQuery: 'uint64_t event',
  cuEventSynchronize: 'uint64_t event',
  cuEventElapsedTime: 'void *milliseconds, uint64_t start, uint64_t end',
  cuGraphInstantiateWithFlags: 'void *executable, uint64_t graph, uint64_t flags',
  cuGraphLaunch: 'uint64_t executable, uint64_t stream',
  cuGraphExecDestroy: 'uint64_t executable',
  cuGraphDestroy: 'uint64_t graph',
}

/** Comes with the NVIDIA driver, wherever that is installed. */
const DRIVER_LIBRARY = 'libcuda.so.1'

/** Binds every function. Throws BACKEND_UNAVAILABLE where there is no driver or it lacks one of them. */
export function openDriver(): Driver {
  return bindLibrary<Driver>([DRIVER_LIBRARY], SIGNATURES, 'install the NVIDIA driver (version 525 or later)')
}

/** The first of `names` that loads, with `signatures` bound. */
export function bindLibrary<T extends object>(
  names: readonly string[],
  signatures: Readonly<Record<keyof T & string, string>>,
  advice: string,
): T {
  const problems: string[] = []
  for (const name of names) {
    try {
      const library = koffi.load(name)
      const entries = Object.entries<string>(signatures).map(([symbol, params]) => [
        symbol,
        library.func(`int ${symbol}(${params})`),
      ])
      return Object.fromEntries(entries) as T
    } catch (cause) {
      problems.push(`${name}: ${cause instanceof Error ? cause.message : String(cause)}`)
    }
  }
  throw new LorikeetError('BACKEND_UNAVAILABLE', { backend: 'cuda', reason: `${problems.join('; ')}; ${advice}` })
}

/** Where an array's bytes lie; valid while the array is reachable, since the memory of array buffers does not move. */
export function addressOf(array: ArrayBufferView): bigint {
  return koffi.address(array)
}

/** Host memory that the driver allocated, as an array buffer. The caller keeps it alive. */
export function viewOf(address: number, numBytes: number): ArrayBuffer {
  return koffi.view(BigInt(address), numBytes)
}
