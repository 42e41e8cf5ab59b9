// Rotary settings of config.json: transformers 5 writes one `rope_parameters` object (Gemma 3: one for each layer type),
// transformers 4 wrote `rope_theta`, `partial_rotary_factor` and `rope_scaling` side by side.

import { LorikeetError } from '../../errors.ts'
import type { ConfigReader } from '../config-reader.ts'
import type { RopeScaling, RopeSpec } from '../decoder-spec.ts'

export interface RopeShape {
  readonly headDim: number
  readonly maxPositions: number
  /** The family's theta where the config names none. */
  readonly defaultTheta: number
}

/** The one rotation of a model whose layers all rotate alike. */
export function readRope(config: ConfigReader, shape: RopeShape): RopeSpec {
  const parameters = config.object('rope_parameters')
  if (parameters !== null) return readRopeObject(parameters, config, shape)
  const theta = config.positive('rope_theta', shape.defaultTheta)
  const scaling = config.object('rope_scaling')
  return ropeSpec(config, shape, theta, scaling === null ? null : readScaling(scaling, shape))
}

/** One rotation of `rope_parameters`, or of one of its layer types; `config` is asked for what it does not say. */
export function readRopeObject(parameters: ConfigReader, config: ConfigReader, shape: RopeShape): RopeSpec {
  const theta = parameters.positive('rope_theta', config.positive('rope_theta', shape.defaultTheta))
  const rotary = parameters.has('partial_rotary_factor') ? parameters : config
  return ropeSpec(rotary, shape, theta, readScaling(parameters, shape))
}

function ropeSpec(config: ConfigReader, shape: RopeShape, theta: number, scaling: RopeScaling | null): RopeSpec {
  const rotaryDim = Math.floor(shape.headDim * config.positive('partial_rotary_factor', 1))
  if (rotaryDim < 2 || rotaryDim % 2 !== 0 || rotaryDim > shape.headDim) {
    throw new LorikeetError('MODEL_UNSUPPORTED', {
      field: 'partial_rotary_factor',
      value: config.number('partial_rotary_factor', 1),
      hint: `it must make an even number of at most head_dim (${shape.headDim}) dimensions rotate`,
    })
  }
  return { rotaryDim, theta, scaling }
}

function readScaling(rope: ConfigReader, shape: RopeShape): RopeScaling | null {
  const field = rope.has('rope_type') ? 'rope_type' : 'type'
  const kind = rope.string(field, 'default')
  switch (kind) {
    case 'default':
      return null
    case 'linear':
      return { kind, factor: rope.positive('factor') }
    case 'dynamic':
      // HF grows the base past max_position_embeddings and reads no other length.
      return { kind, factor: rope.positive('factor'), originalMaxPositions: shape.maxPositions }
    case 'llama3':
      return {
        kind,
        factor: rope.positive('factor'),
        lowFreqFactor: rope.positive('low_freq_factor'),
        highFreqFactor: rope.positive('high_freq_factor'),
        originalMaxPositions: rope.count('original_max_position_embeddings'),
      }
    default:
      throw rope.unsupported(field, 'rotary scaling must be default, linear, dynamic or llama3')
  }
}

/**
 * Positions the model serves. Configs with linear or dynamic scaling state the length before scaling (vLLM reads them so too);
 * llama3 configs state the length after.
 */
export function scaledMaxPositions(maxPositions: number, rope: RopeSpec): number {
  const { scaling } = rope
  if (scaling === null || scaling.kind === 'llama3') return maxPositions
  return Math.floor(maxPositions * Math.max(1, scaling.factor))
}
