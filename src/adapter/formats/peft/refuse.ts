import { LorikeetError } from '../../../errors.ts'

/** Makes the one error of an adapter that cannot be served exactly; `field` is a config key, a tensor or a file. */
export type Refuse = (field: string, reason: string) => LorikeetError

export function refuserOf(adapterName: string): Refuse {
  return (field, reason) => new LorikeetError('ADAPTER_REFUSED', { name: adapterName, field, reason }, { field })
}
