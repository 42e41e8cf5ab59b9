// The weights of one intervention, by the class that saved them:
//
//   LoReFT     h + Rᵀ(act(W h + b) - R h)       NoReFT     h + Pᵀ(act(W h + b) - P h - c)
//   DiReFT     h + Rᵀ act(W h + b)              NodiReFT   h + Pᵀ act(W h + b)
//   ConsReFT   h + Rᵀ(b - R h)                  LobiReFT   h + Rᵀ b
//
// R has orthonormal rows. LoReFT stores it as it is, the others as torch's parametrization keeps it.

import { invariant } from '../../../core/invariant.ts'
import { minus } from '../../arithmetic/element-wise.ts'
import type { BottleneckActivation, StreamEdit } from '../../primitive.ts'
import { orthogonalRows } from '../adapterhub/reft.ts'
import { transpose } from '../peft/module-weights.ts'
import type { Refuse } from '../peft/refuse.ts'
import { type TensorNaming, TensorSet } from '../peft/tensor-set.ts'

interface InterventionType {
  readonly subtractsProjection: boolean
  readonly rotates: boolean
  /** Without: the bias alone, whatever h is. */
  readonly readsStream: boolean
}

const TYPES: Readonly<Record<string, InterventionType>> = {
  ConsreftIntervention: { subtractsProjection: true, rotates: true, readsStream: false },
  DireftIntervention: { subtractsProjection: false, rotates: true, readsStream: true },
  LobireftIntervention: { subtractsProjection: false, rotates: true, readsStream: false },
  LoreftIntervention: { subtractsProjection: true, rotates: true, readsStream: true },
  NodireftIntervention: { subtractsProjection: false, rotates: false, readsStream: true },
  NoreftIntervention: { subtractsProjection: true, rotates: false, readsStream: true },
}

const OWN_NAMES: TensorNaming = { keyOf: (name) => name, nameOf: (key) => key }

const ORTHOGONAL = 'rotate_layer.parametrizations.weight'

export function isIntervention(type: string): boolean {
  return Object.hasOwn(TYPES, type)
}

/** Throws ADAPTER_REFUSED naming the tensor at fault. */
export function readIntervention(
  type: string,
  weightsPath: string,
  width: number,
  activation: BottleneckActivation,
  refuse: Refuse,
): Omit<StreamEdit, 'kind' | 'scope'> {
  const known = TYPES[type]
  invariant(known !== undefined, `${type} is a type of intervention`)
  const { subtractsProjection, rotates, readsStream } = known
  const tensors = new TensorSet(weightsPath, refuse, OWN_NAMES)
  // Buffers of the trainer: sizes, as numbers.
  tensors.skip('embed_dim')
  tensors.skip('interchange_dim')
  const rank = rankOf(tensors, rotates, refuse)
  const rotation = rotates ? readRotation(tensors, rank, width) : tensors.require('proj_layer.weight', [rank, width]).values
  const { source, bias } = readsStream
    ? readSource(tensors, rank, width)
    : { source: new Float32Array(rank * width), bias: tensors.require('learned_source', [rank]).values }
  const projectionBias = rotates ? null : (tensors.take('proj_layer.bias', [rank])?.values ?? null)
  tensors.finish()
  const sourceBias = projectionBias === null || !subtractsProjection ? bias : minus(bias, projectionBias)
  if (sourceBias !== bias && activation !== 'identity') {
    throw refuse('proj_layer.bias', 'together with an activation is not served')
  }
  return { rank, source, sourceBias, rotation, subtractsProjection, activation: readsStream ? activation : 'identity' }
}

function rankOf(tensors: TensorSet, rotates: boolean, refuse: Refuse): number {
  const key = rotates ? (tensors.has('rotate_layer') ? 'rotate_layer' : `${ORTHOGONAL}.original`) : 'proj_layer.weight'
  const rank = tensors.shape(key)?.[rotates ? 1 : 0]
  if (rank === undefined) throw refuse(key, 'missing from the file, or no matrix')
  return rank
}

/** R [rank, width]. */
function readRotation(tensors: TensorSet, rank: number, width: number): Float32Array {
  const plain = tensors.take('rotate_layer', [width, rank])
  if (plain !== null) return transpose(plain.values, width, rank)
  const original = transpose(tensors.require(`${ORTHOGONAL}.original`, [width, rank]).values, width, rank)
  return orthogonalRows(original, tensors.require(`${ORTHOGONAL}.0.base`, [width, width]).values, rank, width)
}

function readSource(tensors: TensorSet, rank: number, width: number): { source: Float32Array; bias: Float32Array } {
  const prefix = tensors.has('weight') ? '' : 'learned_source.'
  return {
    source: tensors.require(`${prefix}weight`, [rank, width]).values,
    bias: tensors.require(`${prefix}bias`, [rank]).values,
  }
}
