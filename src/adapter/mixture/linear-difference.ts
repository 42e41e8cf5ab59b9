// What an adapter adds to a linear: W' - W, b' - b and whatever reads x beside them, so that several can be summed with weights.
//
//   z = factor ⊙ W (x ⊙ inputScale) + bias + Σ δ(x)        every slot of a site comes to this but those named below

import { minus, plus, times } from '../arithmetic/element-wise.ts'
import type {
  Bottleneck,
  Dense,
  GatedLowRank,
  Kron,
  LowRank,
  Primitive,
  Rotate,
  Routed,
  Sparse,
  VectorSlot,
} from '../primitive.ts'

/** Scaled by a weight, it is what the weighted adapter adds. */
export type Addend =
  | LowRank
  | GatedLowRank
  | Kron
  | Sparse
  | Dense
  | Routed
  | Bottleneck
  | Extract<Primitive, { kind: 'circulant' }>

export interface LinearDifference {
  /** Null = 1. */
  readonly factor: Float32Array | null // [out]
  readonly inputScale: Float32Array | null // [in]
  /** In place of the base's; null = the base's. */
  readonly bias: Float32Array | null // [out]
  readonly addends: readonly Addend[]
}

/** `weight` [out, in] and `bias` [out] of the base. Throws `unsummable(what)` where the site computes something no sum of differences is. */
export function linearDifference(
  primitives: readonly Primitive[],
  weight: () => Float32Array,
  bias: (length: number) => Float32Array,
  unsummable: (what: string) => Error,
): LinearDifference {
  const vectors = new Map<VectorSlot, Float32Array>()
  const addends: Addend[] = []
  let replaced: Float32Array | null = null
  let rotation: Rotate | null = null
  for (const primitive of primitives) {
    switch (primitive.kind) {
      case 'vector':
        vectors.set(primitive.slot, primitive.values)
        break
      case 'replace':
        replaced = primitive.weight
        break
      case 'rotate':
        rotation = primitive
        break
      case 'low-rank':
      case 'gated-low-rank':
      case 'kron':
      case 'circulant':
      case 'sparse':
      case 'dense':
        addends.push(primitive)
        break
      case 'routed':
        if (primitive.experts[0]?.kind !== 'low-rank') throw unsummable('a mixture of other than low-rank updates')
        addends.push(primitive)
        break
      case 'bottleneck':
        if (primitive.input !== 'site-beside') throw unsummable(`a bottleneck with input ${primitive.input}`)
        if (primitive.normAfter !== null) throw unsummable('a bottleneck with a norm behind it')
        addends.push(primitive)
        break
      default:
        throw unsummable(`the primitive ${primitive.kind}`)
    }
  }
  if (replaced !== null || rotation !== null) addends.push(ownWeight(replaced ?? weight(), rotation, vectors, weight()))
  return withOutputSlots(vectors, addends, bias, unsummable)
}

/** What an own or a rotated weight adds to the base's, with the factor and the scale of inputs that act on it: both are taken off `vectors`. */
function ownWeight(
  own: Float32Array,
  rotation: Rotate | null,
  vectors: Map<VectorSlot, Float32Array>,
  base: Float32Array,
): Dense {
  const [inputScale, factor] = [vectors.get('input-scale'), vectors.get('factor')]
  let weight = own
  if (inputScale !== undefined) weight = weight.map((value, i) => value * (inputScale[i % inputScale.length] as number))
  if (rotation !== null) weight = rotated(weight, rotation.blockSize, rotation.blocks)
  if (factor !== undefined) {
    const width = weight.length / factor.length
    weight = weight.map((value, i) => value * (factor[Math.floor(i / width)] as number))
  }
  vectors.delete('input-scale')
  vectors.delete('factor')
  return { kind: 'dense', delta: minus(weight, base), rowIds: null }
}

/** The scale of the whole output moves into the factor, the bias and whatever can be scaled by rows. */
function withOutputSlots(
  vectors: ReadonlyMap<VectorSlot, Float32Array>,
  addends: readonly Addend[],
  baseBias: (length: number) => Float32Array,
  unsummable: (what: string) => Error,
): LinearDifference {
  const scale = vectors.get('output-scale') ?? null
  const shift = vectors.get('shift') ?? null
  const inputScale = vectors.get('input-scale') ?? null
  let factor = vectors.get('factor') ?? null
  let bias = vectors.get('bias') ?? null
  let scaled = addends
  if (scale !== null) {
    factor = factor === null ? scale : times(factor, scale)
    bias = times(bias ?? baseBias(scale.length), scale)
    scaled = addends.map((addend) => rowScaled(addend, scale, unsummable))
  }
  if (shift !== null) bias = plus(bias ?? baseBias(shift.length), shift)
  if (factor !== null && inputScale !== null) throw unsummable('a scale of inputs beside one of outputs')
  return { factor, inputScale, bias, addends: scaled }
}

/** diag(scale) · δ */
function rowScaled(addend: Addend, scale: Float32Array, unsummable: (what: string) => Error): Addend {
  const perRow = (values: Float32Array, rowOf: (index: number) => number) =>
    values.map((value, i) => value * (scale[rowOf(i)] as number))
  switch (addend.kind) {
    case 'low-rank': {
      const b = perRow(addend.b, (i) => Math.floor(i / addend.rank))
      return { ...addend, b, biasB: addend.biasB === null ? null : times(addend.biasB, scale) }
    }
    case 'dense': {
      const { delta, rowIds } = addend
      const width = delta.length / (rowIds?.length ?? scale.length)
      const rowOf = (i: number) => (rowIds === null ? Math.floor(i / width) : (rowIds[Math.floor(i / width)] as number))
      return { ...addend, delta: perRow(delta, rowOf) }
    }
    default:
      throw unsummable(`a scale of outputs behind the primitive ${addend.kind}`)
  }
}

/** weight · addend */
export function weighted(addend: Addend, weight: number): Addend {
  const scaled = (values: Float32Array) => values.map((value) => value * weight)
  switch (addend.kind) {
    case 'low-rank':
    case 'kron':
      return { ...addend, scale: addend.scale * weight }
    case 'gated-low-rank':
      return { ...addend, b: scaled(addend.b) }
    case 'circulant':
      return { ...addend, kernel: scaled(addend.kernel) }
    case 'sparse':
      return { ...addend, values: scaled(addend.values) }
    case 'dense':
      return { ...addend, delta: scaled(addend.delta) }
    case 'bottleneck':
      return { ...addend, scale: typeof addend.scale === 'number' ? addend.scale * weight : scaled(addend.scale) }
    case 'routed':
      return {
        ...addend,
        experts: (addend.experts as readonly LowRank[]).map((expert) => ({ ...expert, scale: expert.scale * weight })),
      }
  }
}

/** W' with W' x = W (x · R): row o of W' is R times row o of W, block by block. */
function rotated(weight: Float32Array, size: number, blocks: Float32Array): Float32Array {
  const out = new Float32Array(weight.length)
  const isShared = blocks.length === size * size
  // Rows are whole multiples of the block size, so position in the row does not matter to where a block starts.
  const perRow = blocks.length / (size * size)
  for (let start = 0; start < weight.length; start += size) {
    const block = isShared ? 0 : ((start / size) % perRow) * size * size
    for (let i = 0; i < size; i++) {
      let sum = 0
      for (let j = 0; j < size; j++) sum += (blocks[block + i * size + j] as number) * (weight[start + j] as number)
      out[start + i] = sum
    }
  }
  return out
}
