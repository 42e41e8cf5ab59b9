import type { ConfigReader } from '../config-reader.ts'
import type { Activation } from '../decoder-spec.ts'

const ACTIVATIONS: ReadonlyMap<string, Activation> = new Map([
  ['silu', 'silu'],
  ['swish', 'silu'],
  ['gelu', 'gelu'],
  ['gelu_new', 'gelu-tanh'],
  ['gelu_fast', 'gelu-tanh'],
  ['gelu_pytorch_tanh', 'gelu-tanh'],
  ['relu', 'relu'],
])

/** HF activation names; several spell the tanh approximation of GELU. */
export function readActivation(config: ConfigReader, field: string, fallback: string): Activation {
  const activation = ACTIVATIONS.get(config.string(field, fallback))
  if (activation === undefined) throw config.unsupported(field, `it must be one of ${[...ACTIVATIONS.keys()].join(', ')}`)
  return activation
}
