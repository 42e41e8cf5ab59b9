import type { ConfigReader } from '../config-reader.ts'
import type { Architecture } from './architecture.ts'
import { type DecoderShape, describeLlamaLike, readShape } from './llama-like.ts'
import { readSlidingWindows } from './sliding-windows.ts'

/** Qwen 2 and 2.5 (arXiv:2407.10671, arXiv:2412.15115): q, k and v always have a bias. */
export const qwen2: Architecture = {
  modelTypes: ['qwen2'],
  describe(config) {
    const shape = readShape(config)
    return describeLlamaLike(config, {
      modelType: 'qwen2',
      shape,
      biases: { qkv: true },
      slidingWindows: readQwenWindows(config, shape),
    })
  },
}

/** `sliding_window` counts only under `use_sliding_window`, and then from layer `max_window_layers` up. */
export function readQwenWindows(config: ConfigReader, shape: DecoderShape): readonly (number | null)[] {
  const window = config.boolean('use_sliding_window', false) ? config.countOrNull('sliding_window') : null
  const firstSliding = window === null ? shape.numLayers : config.number('max_window_layers', 28)
  return readSlidingWindows(config, shape.numLayers, window, (layer) => layer >= firstSliding)
}
