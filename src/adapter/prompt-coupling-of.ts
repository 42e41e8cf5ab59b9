import type { PromptCoupling } from '../core/prompt-coupling.ts'
import type { Sites } from './digest.ts'
import type { Primitive, VirtualTokens } from './primitive.ts'

/** What keys and values of a prompt depend on beside the tokens before them, by what the adapter's primitives read. */
export function promptCouplingOf(sites: Sites, virtualTokens: VirtualTokens | null): PromptCoupling {
  const primitives = [...sites.values()].flat()
  if (virtualTokens?.kind === 'prefix' && virtualTokens.gates !== null) return 'whole'
  if (primitives.some(averagesPrompt)) return 'whole'
  return primitives.some(endsWithPrompt) ? 'length' : 'none'
}

function averagesPrompt(primitive: Primitive): boolean {
  switch (primitive.kind) {
    case 'gated-low-rank':
      return true
    case 'bottleneck':
      return primitive.gate !== null
    case 'routed':
      return primitive.experts.some(averagesPrompt)
    default:
      return false
  }
}

/** Generated tokens are left alone, so where the prompt ends matters to the positions behind. */
function endsWithPrompt({ kind }: Primitive): boolean {
  return kind === 'stream-edit' || kind === 'position-rows'
}
