import type { BottleneckActivation } from '../../primitive.ts'
import { show } from '../peft/config-fields.ts'
import type { HubContext } from './hub-context.ts'

const ACTIVATIONS: Readonly<Record<string, BottleneckActivation>> = {
  gelu: 'gelu',
  gelu_new: 'gelu-tanh',
  gelu_pytorch_tanh: 'gelu-tanh',
  leakyrelu: 'leaky-relu',
  linear: 'identity',
  relu: 'relu',
  sigmoid: 'sigmoid',
  silu: 'silu',
  swish: 'silu',
  tanh: 'tanh',
}

/** Reads `non_linearity`; null in the config is `fallback`. */
export function readActivation(
  { config, refuse, version }: HubContext,
  fallback: BottleneckActivation | null = null,
): BottleneckActivation {
  const value = config.value('non_linearity')
  if (value === null && fallback !== null) return fallback
  const name = typeof value === 'string' ? value.toLowerCase() : ''
  // Files without a version were written when `gelu` named the tanh approximation.
  if (name === 'gelu' && version === null) return 'gelu-tanh'
  const activation = Object.hasOwn(ACTIVATIONS, name) ? ACTIVATIONS[name] : undefined
  if (activation === undefined) {
    throw refuse('non_linearity', `${show(value)} is not served; known are ${Object.keys(ACTIVATIONS).join(', ')}`)
  }
  return activation
}
