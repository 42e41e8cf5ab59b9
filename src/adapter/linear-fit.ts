// Whether the parameters of a linear, an embedding or a norm can be changed as a primitive says.

import type { Circulant, Dense, Kron, LowRank, PairRotate, Replace, Rotate, Rows, Sparse, Vector } from './primitive.ts'
import type { SiteShape } from './site-shapes.ts'

export type LinearPrimitive = LowRank | Vector | Replace | Rows | Kron | Circulant | Sparse | Dense | Rotate | PairRotate

/** Why the primitive does not fit the site, or null. */
export function linearMisfit(shape: SiteShape, primitive: LinearPrimitive): string | null {
  const { kind, numOut, numIn } = shape
  switch (primitive.kind) {
    case 'low-rank':
      return lowRankMisfit(shape, primitive)
    case 'vector':
      return vectorMisfit(shape, primitive)
    case 'replace':
      return lengthMisfit('the weight', primitive.weight, kind === 'norm' ? numOut : numOut * numIn)
    case 'rows':
      return idsMisfit(primitive.rowIds, numOut) ?? lengthMisfit('rows', primitive.rows, primitive.rowIds.length * numIn)
    case 'kron':
      return kronMisfit(shape, primitive)
    case 'circulant': {
      const { blockSize, kernel } = primitive
      if (numIn % blockSize !== 0 || numOut % blockSize !== 0)
        return `blocks of ${blockSize} do not divide ${numOut} x ${numIn}`
      return lengthMisfit('the kernel', kernel, (numOut / blockSize) * (numIn / blockSize) * blockSize)
    }
    case 'sparse':
      return sparseMisfit(shape, primitive)
    case 'dense': {
      const { delta, rowIds } = primitive
      const misfit = rowIds === null ? null : idsMisfit(rowIds, numOut)
      return misfit ?? lengthMisfit('the difference', delta, (rowIds?.length ?? numOut) * numIn)
    }
    case 'rotate': {
      const { blockSize, blocks } = primitive
      if (numIn % blockSize !== 0) return `blocks of ${blockSize} do not divide ${numIn}`
      const isShared = blocks.length === blockSize * blockSize
      return isShared ? null : lengthMisfit('blocks', blocks, numIn * blockSize)
    }
    case 'pair-rotate': {
      const { half, cos, sin } = primitive
      const width = outWidth(shape)
      if (width % (2 * half) !== 0) return `pairs of ${half} do not divide ${width}`
      return lengthMisfit('cos', cos, width) ?? lengthMisfit('sin', sin, width)
    }
  }
}

/** Null where the array has `expected` values. */
export function lengthMisfit(what: string, { length }: { readonly length: number }, expected: number): string | null {
  return length === expected ? null : `${what} has ${length} values, not ${expected}`
}

/** What a row that leaves the site is wide: an embedding answers rows of its table. */
export function outWidth({ kind, numOut, numIn }: SiteShape): number {
  return kind === 'embedding' ? numIn : numOut
}

function lowRankMisfit(shape: SiteShape, { rank, a, b, biasB }: LowRank): string | null {
  const inWidth = shape.kind === 'embedding' ? shape.numOut : shape.numIn
  const width = outWidth(shape)
  return (
    lengthMisfit('A', a, rank * inWidth) ??
    lengthMisfit('B', b, rank * width) ??
    (biasB === null ? null : lengthMisfit('the bias of B', biasB, width))
  )
}

/** A norm gives normalised x · weight + bias, scaled, shifted; an embedding has no input to scale. */
function vectorMisfit(shape: SiteShape, { slot, values }: Vector): string | null {
  const { kind, numIn } = shape
  if (slot === 'input-scale' && kind !== 'linear' && kind !== 'head') return `no slot ${slot} here`
  if (slot === 'factor' && kind === 'norm') return `a norm has no slot ${slot}`
  return lengthMisfit(`the vector in slot ${slot}`, values, slot === 'input-scale' ? numIn : outWidth(shape))
}

function kronMisfit({ numOut, numIn }: SiteShape, { leftShape, rightShape, left, right }: Kron): string | null {
  const [a, b] = leftShape
  const [c, e] = rightShape
  if (a * c !== numOut || b * e !== numIn) return `factors ${a} x ${b} and ${c} x ${e} do not make ${numOut} x ${numIn}`
  return lengthMisfit('the left factor', left, a * b) ?? lengthMisfit('the right factor', right, c * e)
}

function sparseMisfit({ numOut, numIn }: SiteShape, { rowStarts, columns, values }: Sparse): string | null {
  const misfit = lengthMisfit('row starts', rowStarts, numOut + 1) ?? lengthMisfit('columns', columns, values.length)
  if (misfit !== null) return misfit
  const isAscending = rowStarts.every((start, i) => i === 0 || start >= (rowStarts[i - 1] as number))
  if (!isAscending || rowStarts[0] !== 0 || rowStarts[numOut] !== values.length)
    return 'row starts must ascend over all entries'
  return columns.every((column) => column >= 0 && column < numIn) ? null : `columns must be below ${numIn}`
}

function idsMisfit(ids: Int32Array, numRows: number): string | null {
  const isRight = ids.every((id, i) => id >= 0 && id < numRows && (i === 0 || id > (ids[i - 1] as number)))
  return isRight ? null : `row ids must ascend and be below ${numRows}`
}
