// ReFT (arXiv:2404.03592): edits of the stream behind a layer at the first and last tokens of the prompt.
//
//   h + Rᵀ(act(W h + b) - R h)          DiReFT leaves `- R h` out

import type { StreamEdit } from '../../primitive.ts'
import { show } from '../peft/config-fields.ts'
import { readActivation } from './activation.ts'
import type { HubContext } from './hub-context.ts'

export function compileReft(context: HubContext): undefined {
  const { config, sites, model, refuse } = context
  config.ignore(['dropout', 'dtype', 'init_weights_seed'])
  if (config.value('output_reft') === false) throw refuse('output_reft', 'is off, so no layer is edited')
  const rank = readCount(context, 'r', 1)
  const numFirst = readCount(context, 'prefix_positions', 0)
  const numLast = readCount(context, 'suffix_positions', 0)
  const isTied = config.flag('tied_weights')
  const isOrthogonal = config.flag('orthogonality')
  const activation = readActivation(context, 'identity')
  const subtractsProjection = readSubtraction(context, isOrthogonal)
  const layers = readLayers(context)
  config.finish()
  if (numFirst + numLast === 0) throw refuse('prefix_positions', 'no position of the prompt is edited')
  const width = model.spec.hiddenSize
  for (const layer of layers) {
    const unit = (index: number, scope: StreamEdit['scope']): StreamEdit => {
      const path = `model.layers.${layer}.reft_layer.refts.units.${index}`
      return {
        kind: 'stream-edit',
        rank,
        source: context.tensors.require(`${path}.learned_source.weight`, [rank, width]).values,
        sourceBias: context.tensors.require(`${path}.learned_source.bias`, [rank]).values,
        rotation: isOrthogonal
          ? orthogonal(context, `${path}.projection.parametrizations.weight`, rank, width)
          : context.tensors.require(`${path}.projection.weight`, [rank, width]).values,
        subtractsProjection,
        activation,
        scope,
      }
    }
    const edits = isTied
      ? [unit(0, { numFirst, numLast })]
      : [unit(0, { numFirst, numLast: 0 }), unit(1, { numFirst: 0, numLast })]
    for (const edit of edits) {
      if (edit.scope.numFirst + edit.scope.numLast > 0) sites.addAtHook(`layers.${layer}.blockOut`, edit)
    }
  }
}

/**
 * The flag that tells DiReFT from NoReFT is no field of the library's config and so never written: whatever was trained, the library
 * itself loads such a file as NoReFT. A `subtract_projection` added to the config decides.
 */
function readSubtraction({ config, refuse, warnings }: HubContext, isOrthogonal: boolean): boolean {
  const value = config.value('subtract_projection')
  if (typeof value === 'boolean') return value
  if (value !== null) throw refuse('subtract_projection', `${show(value)} is neither true nor false`)
  if (!isOrthogonal) {
    warnings.push(
      'served as NoReFT, as its library loads it; if it was trained as DiReFT, add "subtract_projection": false to "config"',
    )
  }
  return true
}

function readLayers({ config, model, refuse }: HubContext): readonly number[] {
  const value = config.value('layers')
  const { numLayers } = model.spec
  if (value === 'all') return Array.from({ length: numLayers }, (_, layer) => layer)
  const isList = Array.isArray(value) && value.every((layer) => Number.isInteger(layer) && layer >= 0 && layer < numLayers)
  if (!isList) throw refuse('layers', `${show(value)} is neither all nor a list of this model's layers`)
  return value as number[]
}

function readCount({ config, refuse }: HubContext, key: string, least: number): number {
  const value = config.number(key)
  if (!Number.isInteger(value) || value < least) throw refuse(key, `${show(value)} is not a count`)
  return value
}

function orthogonal({ tensors }: HubContext, path: string, rank: number, width: number): Float32Array {
  const original = tensors.require(`${path}.original`, [rank, width]).values
  return orthogonalRows(original, tensors.require(`${path}.0.base`, [width, width]).values, rank, width)
}

/**
 * The matrix [rank, width] behind torch.nn.utils.parametrizations.orthogonal, which keeps Householder vectors below the diagonal of Xᵀ
 * and multiplies their product Q by a base: R = (base · Q[:, :rank] · diag(±1))ᵀ. `original` is X, [rank, width].
 */
export function orthogonalRows(original: Float32Array, base: Float32Array, rank: number, width: number): Float32Array {
  // Columns of the identity, reflected by H_0 (H_1 (… H_{rank-1} e)).
  const columns = Array.from({ length: rank }, (_, column) => {
    const vector = new Float64Array(width)
    vector[column] = 1
    for (let j = rank - 1; j >= 0; j--) reflect(vector, original.subarray(j * width, (j + 1) * width), j)
    const sign = Math.trunc(original[column * width + column] as number)
    return vector.map((value) => value * sign)
  })
  const rotation = new Float32Array(rank * width)
  columns.forEach((vector, column) => {
    for (let row = 0; row < width; row++) {
      let sum = 0
      for (let k = 0; k < width; k++) sum += (base[row * width + k] as number) * (vector[k] as number)
      rotation[column * width + row] = sum
    }
  })
  return rotation
}

/** vector -= τ v (v · vector) with v = e_j + what `stored` holds behind index j, τ = 2 / |v|². */
function reflect(vector: Float64Array, stored: Float32Array, j: number): void {
  let squares = 1
  let along = vector[j] as number
  for (let i = j + 1; i < stored.length; i++) {
    const value = stored[i] as number
    squares += value * value
    along += value * (vector[i] as number)
  }
  const step = (2 / squares) * along
  vector[j] = (vector[j] as number) - step
  for (let i = j + 1; i < stored.length; i++) vector[i] = (vector[i] as number) - step * (stored[i] as number)
}
