// Asked by the doctor in a process of its own, since a driver may end the process that loads it: one line of JSON about the GPU.

import { asLorikeetError } from '../../errors.ts'
import { Device } from './device.ts'
import { Matmul } from './matmul.ts'
import { KernelModule } from './module.ts'

/** Below this not even a small model's weights, adapters and cache fit. */
const MIN_FREE_BYTES = 2 * 2 ** 30

function probe(): { runs: boolean; detail: string } {
  try {
    const device = Device.open()
    KernelModule.load(device)[Symbol.dispose]()
    new Matmul(device, 'bfloat16')[Symbol.dispose]()
    const { name, capability, driverVersion } = device.facts
    const freeBytes = device.freeBytes()
    const free = `${(freeBytes / 2 ** 30).toFixed(1)} GiB free`
    device[Symbol.dispose]()
    if (freeBytes < MIN_FREE_BYTES) {
      return { runs: false, detail: `${name} has ${free}; stop other programs on it (nvidia-smi lists them)` }
    }
    return { runs: true, detail: `${name}, compute capability ${capability}, CUDA ${driverVersion} driver, ${free}` }
  } catch (error) {
    return { runs: false, detail: asLorikeetError(error).message }
  }
}

process.stdout.write(`${JSON.stringify(probe())}\n`)
