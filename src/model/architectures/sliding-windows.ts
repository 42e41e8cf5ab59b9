import { LorikeetError } from '../../errors.ts'
import type { ConfigReader } from '../config-reader.ts'

/**
 * Sliding window of each layer, from `layer_types` where the config lists them, else by the family's older rule.
 * Throws MODEL_UNSUPPORTED for a layer type that is neither full nor sliding attention.
 */
export function readSlidingWindows(
  config: ConfigReader,
  numLayers: number,
  window: number | null,
  isSlidingByRule: (layer: number) => boolean,
): readonly (number | null)[] {
  const isSliding = readLayerTypes(config, numLayers, isSlidingByRule)
  return isSliding.map((sliding) => (sliding ? window : null))
}

/** Whether each layer is of type `sliding_attention`. */
export function readLayerTypes(
  config: ConfigReader,
  numLayers: number,
  isSlidingByRule: (layer: number) => boolean,
): readonly boolean[] {
  const types = config.strings('layer_types')
  if (types === null) return Array.from({ length: numLayers }, (_, layer) => isSlidingByRule(layer))
  if (types.length !== numLayers) {
    throw new LorikeetError('MODEL_INVALID', {
      reason: `config.json: layer_types lists ${types.length} layers and num_hidden_layers says ${numLayers}`,
    })
  }
  const known = ['full_attention', 'sliding_attention']
  if (!types.every((type) => known.includes(type))) {
    throw config.unsupported('layer_types', `every layer must be one of ${known.join(', ')}`)
  }
  return types.map((type) => type === 'sliding_attention')
}
