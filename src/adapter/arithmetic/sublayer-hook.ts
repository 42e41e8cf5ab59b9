// Bottlenecks and mixtures at `attnOut` and `mlpOut`, one after the other.

import type { Bottleneck, Routed } from '../primitive.ts'
import { bottleneck, expanded, layerNorm } from './bottleneck.ts'
import { addTo } from './dot.ts'
import { expertWeights, fused } from './expert-weights.ts'

/** Rows of one call. */
export interface SublayerRows {
  /** What the sublayer adds. */
  readonly f: readonly Float32Array[]
  /** The stream before it. */
  readonly residual: readonly Float32Array[]
  /** Its normed input. */
  readonly normed: readonly Float32Array[]
}

/** What the sublayer adds instead of f. */
export function sublayerOutput(modules: readonly (Bottleneck | Routed)[], rows: SublayerRows): readonly Float32Array[] {
  let { f } = rows
  for (const module of modules) {
    f = module.kind === 'routed' ? afterMixture(module, { ...rows, f }) : afterBottleneck(module, { ...rows, f })
  }
  return f
}

function afterBottleneck(adapter: Bottleneck, rows: SublayerRows): readonly Float32Array[] {
  const inputs = inputsOf(adapter.input, rows)
  const { normAfter } = adapter
  if (adapter.normsSublayerSum && normAfter !== null) {
    return sums(rows.f, expanded(adapter, inputs)).map((sum) => layerNorm(sum, normAfter))
  }
  return sums(rows.f, bottleneck(adapter, inputs))
}

/** f = sublayerWeight · f + Σ p_e A_e */
function afterMixture({ experts, gate, sublayerWeight }: Routed, rows: SublayerRows): readonly Float32Array[] {
  const [first] = experts
  if (first?.kind !== 'bottleneck') return rows.f
  const inputs = inputsOf(first.input, rows)
  const outputs = experts.map((expert) => (expert.kind === 'bottleneck' ? bottleneck(expert, inputs) : []))
  return rows.f.map((f, row) => {
    const s = inputs[row] as Float32Array
    const ofExperts = outputs.map((ofExpert) => ofExpert[row] as Float32Array)
    const out = f.map((value) => sublayerWeight * value)
    if (gate.kind === 'attention') addTo(out, fused(gate, s, ofExperts))
    else for (const [i, weight] of expertWeights(gate, s).entries()) addTo(out, ofExperts[i] as Float32Array, weight)
    return out
  })
}

function inputsOf(input: Bottleneck['input'], { f, residual, normed }: SublayerRows): readonly Float32Array[] {
  if (input === 'residual') return residual
  if (input === 'normed') return normed
  return input === 'sum' ? sums(f, residual) : f
}

function sums(a: readonly Float32Array[], b: readonly Float32Array[]): readonly Float32Array[] {
  return a.map((row, i) => row.map((value, j) => value + ((b[i] as Float32Array)[j] as number)))
}
