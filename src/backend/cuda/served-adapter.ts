// What of the primitive IR the GPU computes; an adapter with anything else is refused naming the site and the primitive.

import { fitAdapter } from '../../adapter/adapter-fit.ts'
import type { CompiledAdapter, Primitive } from '../../adapter/primitive.ts'
import type { SitePrimitives } from '../../adapter/site-primitives.ts'
import type { SiteShapes } from '../../adapter/site-shapes.ts'
import { LorikeetError } from '../../errors.ts'
import type { DecoderSpec } from '../../model/decoder-spec.ts'

const SERVED: ReadonlySet<Primitive['kind']> = new Set(['low-rank', 'vector', 'replace', 'rows'])

/** Throws ADAPTER_REFUSED where a primitive does not fit the model, or the GPU does not compute it. */
export function fitServedAdapter(
  adapter: CompiledAdapter,
  shapes: SiteShapes,
  spec: DecoderSpec,
): ReadonlyMap<string, SitePrimitives> {
  const sites = fitAdapter(adapter, shapes, spec)
  for (const [site, primitives] of adapter.sites) {
    const other = primitives.find(({ kind }) => !SERVED.has(kind))
    if (other !== undefined) throw refused(adapter, site, `the cuda backend does not compute ${other.kind}`)
  }
  const problem = virtualProblem(adapter, spec)
  if (problem !== null) throw refused(adapter, adapter.virtualTokens?.kind ?? '', problem)
  return sites
}

function virtualProblem({ virtualTokens }: CompiledAdapter, spec: DecoderSpec): string | null {
  if (virtualTokens === null) return null
  if (virtualTokens.kind === 'soft-prompt') {
    return virtualTokens.layerRows === null ? null : 'the cuda backend does not add virtual tokens to deeper layers'
  }
  if (virtualTokens.gates !== null) return 'the cuda backend does not compute gates of a prefix'
  const hasWindow = spec.layers.some(({ slidingWindow }) => slidingWindow !== null)
  return virtualTokens.positions === 'no-shift' && hasWindow
    ? 'the cuda backend does not keep a prefix visible behind a sliding window'
    : null
}

function refused(adapter: CompiledAdapter, site: string, reason: string): LorikeetError {
  return new LorikeetError('ADAPTER_REFUSED', { name: adapter.name, field: site, reason: `${reason}; use --backend onnx` })
}
