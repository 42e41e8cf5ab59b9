// VBLORA (arXiv:2405.15179): every sub-vector of A and B is a mixture of k vectors out of one bank shared by the whole adapter:
// the softmax over the k largest of its logits. ΔW = B · A, no scale. The file holds all logits, or only the chosen indices and
// all their weights but the last, which completes 1.

import type { ModuleInfo } from '../../../model/module-map.ts'
import { type LinearKind, openTargets, QUERY_AND_VALUE } from './linear-kind.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { readSize } from './rank.ts'

const VBLORA: LinearKind = {
  trainingKeys: ['fan_in_fan_out', 'init_logits_std', 'init_vector_bank_bound', 'vblora_dropout'],
  defaultTargets: QUERY_AND_VALUE,
  targetedBias: 'vblora_only',
  takesConv1d: true,
}

interface Bank {
  readonly numVectors: number
  readonly length: number
  readonly topK: number
  readonly isCompressed: boolean
  readonly vectors: Float32Array // [numVectors, length]
}

/** A stored float32 weight may leave [0, 1] by rounding alone; further out it is no softmax. */
const WEIGHT_TOLERANCE = 1e-4

export function compileVblora(context: PeftContext): PeftScope {
  const { config, tensors, refuse } = context
  const rank = readSize(context, 'r')
  const numVectors = readSize(context, 'num_vectors')
  const length = readSize(context, 'vector_length')
  const topK = readSize(context, 'topk')
  if (topK > numVectors) throw refuse('topk', `${topK} is more than the ${numVectors} vectors of the bank`)
  const isCompressed = config.flag('save_only_topk_weights')
  const { modules } = openTargets(context, VBLORA)
  for (const { path, outFeatures, inFeatures } of modules) {
    if (inFeatures % length !== 0 || outFeatures % length !== 0)
      throw refuse('vector_length', `${path} [${outFeatures}, ${inFeatures}] is not divisible by ${length}`)
  }
  const vectors = tensors.require('base_model.vblora_vector_bank', [numVectors, length]).values
  const bank: Bank = { numVectors, length, topK, isCompressed, vectors }
  for (const module of modules) compileModule(context, module, rank, bank)
  return EVERYWHERE
}

function compileModule(context: PeftContext, module: ModuleInfo, rank: number, bank: Bank): void {
  const { path, outFeatures, inFeatures } = module
  const { length } = bank
  const a = mixedVectors(context, `${path}.vblora_logits_A`, [rank, inFeatures / length], bank)
  const tiles = mixedVectors(context, `${path}.vblora_logits_B`, [outFeatures / length, rank], bank)
  // Tiles of B are [out / length, rank, length]; a row of B is one element of each rank's vector.
  const b = new Float32Array(tiles.length)
  for (let o = 0; o < outFeatures; o++) {
    const tile = Math.floor(o / length) * rank
    for (let k = 0; k < rank; k++) b[o * rank + k] = tiles[(tile + k) * length + (o % length)] as number
  }
  context.sites.addLowRank(module, { rank, scale: 1, a, b, biasB: null })
}

/** The mixtures of a [rows, columns] grid, one bank vector long each. */
function mixedVectors(context: PeftContext, key: string, grid: readonly [number, number], bank: Bank): Float32Array {
  const { topK, length, vectors } = bank
  const { indices, weights } = bank.isCompressed ? readChoice(context, key, grid, bank) : choose(context, key, grid, bank)
  const out = new Float32Array(grid[0] * grid[1] * length)
  const sum = new Float64Array(length)
  for (let cell = 0; cell < grid[0] * grid[1]; cell++) {
    sum.fill(0)
    for (let k = cell * topK; k < (cell + 1) * topK; k++) {
      const from = (indices[k] as number) * length
      for (let i = 0; i < length; i++) sum[i] = (sum[i] as number) + (weights[k] as number) * (vectors[from + i] as number)
    }
    out.set(sum, cell * length)
  }
  return out
}

interface Choice {
  readonly indices: Int32Array // [rows · columns, topK]
  readonly weights: Float64Array
}

function choose({ tensors }: PeftContext, key: string, grid: readonly [number, number], bank: Bank): Choice {
  const { numVectors, topK } = bank
  const logits = tensors.require(key, [...grid, numVectors]).values
  const numCells = grid[0] * grid[1]
  const indices = new Int32Array(numCells * topK)
  const weights = new Float64Array(numCells * topK)
  for (let cell = 0; cell < numCells; cell++) {
    const row = logits.subarray(cell * numVectors, (cell + 1) * numVectors)
    const best = Array.from(row.keys())
      .sort((i, j) => (row[j] as number) - (row[i] as number) || i - j)
      .slice(0, topK)
    const largest = row[best[0] ?? 0] as number
    const exponentials = best.map((i) => Math.exp((row[i] as number) - largest))
    const total = exponentials.reduce((sum, value) => sum + value, 0)
    indices.set(best, cell * topK)
    weights.set(
      exponentials.map((value) => value / total),
      cell * topK,
    )
  }
  return { indices, weights }
}

function readChoice(context: PeftContext, key: string, grid: readonly [number, number], bank: Bank): Choice {
  const { tensors, refuse } = context
  const { numVectors, topK } = bank
  const indices = tensors.requireIntegers(`${key}_topk_indices`, [...grid, topK])
  const isOutside = (index: number) => index < 0 || index >= numVectors
  if (indices.some(isOutside)) throw refuse(`${key}_topk_indices`, `names a vector outside the bank of ${numVectors}`)
  const stored = tensors.require(`${key}_topk_weights`, [...grid, topK - 1])
  const weights = new Float64Array(indices.length)
  for (let cell = 0; cell < grid[0] * grid[1]; cell++) {
    let rest = 1
    for (let k = 0; k < topK - 1; k++) {
      const weight = stored.values[cell * (topK - 1) + k] as number
      rest -= weight
      weights[cell * topK + k] = weight
    }
    weights[cell * topK + topK - 1] = rest
  }
  if (weights.some((weight) => weight < -WEIGHT_TOLERANCE || weight > 1 + WEIGHT_TOLERANCE))
    throw refuse(stored.key, 'holds weights that no softmax gives')
  return { indices, weights }
}
