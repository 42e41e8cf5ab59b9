// Names of activations as HF transformers' table has them, which several writers store in their configs.

import type { BottleneckActivation } from '../primitive.ts'
import { show } from './peft/config-fields.ts'
import type { Refuse } from './peft/refuse.ts'

const ACTIVATIONS: Readonly<Record<string, BottleneckActivation>> = {
  gelu: 'gelu',
  gelu_fast: 'gelu-tanh',
  gelu_new: 'gelu-tanh',
  gelu_pytorch_tanh: 'gelu-tanh',
  leaky_relu: 'leaky-relu',
  linear: 'identity',
  relu: 'relu',
  sigmoid: 'sigmoid',
  silu: 'silu',
  swish: 'silu',
  tanh: 'tanh',
}

/** `others` are names a writer adds. Throws ADAPTER_REFUSED naming `field` for a name in neither. */
export function activationNamed(
  value: unknown,
  field: string,
  refuse: Refuse,
  others: Readonly<Record<string, BottleneckActivation>> = {},
): BottleneckActivation {
  const table = { ...ACTIVATIONS, ...others }
  const activation = typeof value === 'string' && Object.hasOwn(table, value) ? table[value] : undefined
  if (activation === undefined) {
    throw refuse(field, `${show(value)} is not served; known are ${Object.keys(table).join(', ')}`)
  }
  return activation
}
