// What every reader of an adapter's virtual tokens asks of them.

import { LorikeetError } from '../errors.ts'
import type { DecoderSpec } from '../model/decoder-spec.ts'
import type { CompiledAdapter, VirtualTokens } from './primitive.ts'
import { arraysOf } from './primitive-arrays.ts'

/** How many virtual tokens an adapter has, and how many of those, the leading ones, have keys and values given. */
export interface VirtualTokenCounts {
  readonly numVirtualTokens: number
  readonly numGivenTokens: number
  /** Index of a token in the sequence less its position. */
  readonly positionOffset: number
}

export function countVirtualTokens(virtualTokens: VirtualTokens | null): VirtualTokenCounts {
  if (virtualTokens === null) return { numVirtualTokens: 0, numGivenTokens: 0, positionOffset: 0 }
  const numVirtualTokens = virtualTokens.numTokens
  if (virtualTokens.kind === 'soft-prompt') return { numVirtualTokens, numGivenTokens: 0, positionOffset: 0 }
  const positionOffset = virtualTokens.positions === 'no-shift' ? numVirtualTokens : 0
  return { numVirtualTokens, numGivenTokens: numVirtualTokens, positionOffset }
}

export function virtualBytes(virtualTokens: VirtualTokens | null): number {
  if (virtualTokens === null) return 0
  return arraysOf(virtualTokens).reduce((sum, array) => sum + array.byteLength, 0)
}

/** For backends, beside their check of sites. Throws ADAPTER_REFUSED where the arrays do not fit the model. */
export function checkVirtualTokens({ name, virtualTokens, promptCoupling }: CompiledAdapter, spec: DecoderSpec): void {
  if (virtualTokens === null) return
  if (virtualTokens.kind === 'soft-prompt' && promptCoupling === 'whole') {
    const reason = 'rows whose blocks are shared cannot be averaged over with a prompt'
    throw new LorikeetError('ADAPTER_REFUSED', { name, field: virtualTokens.kind, reason })
  }
  const { kind, numTokens } = virtualTokens
  const width = kind === 'prefix' ? spec.numKvHeads * spec.headDim : spec.hiddenSize
  const numArrays = kind === 'prefix' ? 2 * spec.numLayers : 1 + (virtualTokens.layerRows === null ? 0 : spec.numLayers)
  const arrays = rowArrays(virtualTokens)
  if (numTokens > 0 && arrays.length === numArrays && arrays.every(({ length }) => length === numTokens * width)) return
  const reason = `${numTokens} virtual tokens need ${numArrays} arrays of ${numTokens} x ${width} for this model`
  throw new LorikeetError('ADAPTER_REFUSED', { name, field: kind, reason })
}

/** The arrays of one row a virtual token. */
function rowArrays(virtualTokens: VirtualTokens): readonly Float32Array[] {
  if (virtualTokens.kind === 'soft-prompt') return [virtualTokens.rows, ...(virtualTokens.layerRows ?? [])]
  return [...virtualTokens.keys, ...virtualTokens.values]
}
