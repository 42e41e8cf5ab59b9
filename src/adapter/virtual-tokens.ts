// What every reader of an adapter's virtual tokens asks of them.

import { LorikeetError } from '../errors.ts'
import type { DecoderSpec } from '../model/decoder-spec.ts'
import type { CompiledAdapter, VirtualTokens } from './primitive.ts'

/** How many virtual tokens an adapter has, and how many of those, the leading ones, have keys and values given. */
export interface VirtualTokenCounts {
  readonly numVirtualTokens: number
  readonly numGivenTokens: number
}

export function countVirtualTokens(virtualTokens: VirtualTokens | null): VirtualTokenCounts {
  if (virtualTokens === null) return { numVirtualTokens: 0, numGivenTokens: 0 }
  const { kind, numTokens } = virtualTokens
  return { numVirtualTokens: numTokens, numGivenTokens: kind === 'prefix' ? numTokens : 0 }
}

/** The arrays in a fixed order. */
export function virtualArrays(virtualTokens: VirtualTokens): readonly Float32Array[] {
  return virtualTokens.kind === 'prefix' ? [...virtualTokens.keys, ...virtualTokens.values] : [virtualTokens.rows]
}

export function virtualBytes(virtualTokens: VirtualTokens | null): number {
  if (virtualTokens === null) return 0
  return virtualArrays(virtualTokens).reduce((sum, array) => sum + array.byteLength, 0)
}

/** For backends, beside their check of sites. Throws ADAPTER_REFUSED where the arrays do not fit the model. */
export function checkVirtualTokens({ name, virtualTokens }: CompiledAdapter, spec: DecoderSpec): void {
  if (virtualTokens === null) return
  const { kind, numTokens } = virtualTokens
  const width = kind === 'prefix' ? spec.numKvHeads * spec.headDim : spec.hiddenSize
  const numArrays = kind === 'prefix' ? 2 * spec.numLayers : 1
  const arrays = virtualArrays(virtualTokens)
  if (numTokens > 0 && arrays.length === numArrays && arrays.every(({ length }) => length === numTokens * width)) return
  const reason = `${numTokens} virtual tokens need ${numArrays} arrays of ${numTokens} x ${width} for this model`
  throw new LorikeetError('ADAPTER_REFUSED', { name, field: kind, reason })
}
