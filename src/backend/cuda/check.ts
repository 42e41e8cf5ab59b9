// The one place where statuses of native libraries become errors.

import { LorikeetError } from '../../errors.ts'
import type { Driver, Status } from './driver.ts'

/** Throws BACKEND_FAILED with the driver's own words unless `status` is success. */
export function checkDriver(driver: Driver, status: Status, what: string): void {
  if (status === 0) return
  throw new LorikeetError('BACKEND_FAILED', { backend: 'cuda', detail: `${what}: ${describeStatus(driver, status)}` })
}

/** `CUDA_ERROR_OUT_OF_MEMORY (out of memory)`. */
export function describeStatus(driver: Driver, status: Status): string {
  const name: [string | null] = [null]
  const text: [string | null] = [null]
  driver.cuGetErrorName(status, name)
  driver.cuGetErrorString(status, text)
  return name[0] === null ? `driver status ${status}` : `${name[0]} (${text[0]})`
}
