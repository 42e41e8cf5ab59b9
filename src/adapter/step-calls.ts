// Where the rows of a step are inside their sequences, for what depends on more than one row or on the prompt's length.

import { NO_ADAPTER_SLOT } from '../core/ids.ts'
import type { StepPlan } from '../core/step-plan.ts'

/**
 * Rows of the step that a gate averages over: all prompt rows of one sequence on which its adapter acts, then each later row alone.
 * Virtual tokens are a call of their own. Rows of the base model are no call.
 */
export function callsOf(plan: StepPlan): readonly (readonly number[])[] {
  const calls: number[][] = []
  for (let seq = 0; seq < plan.numSeqs; seq++) {
    const virtual: number[] = []
    const prompt: number[] = []
    calls.push(virtual, prompt)
    for (let row = plan.queryStart[seq] as number; row < (plan.queryStart[seq + 1] as number); row++) {
      if ((plan.adapterSlotOfToken[row] as number) === NO_ADAPTER_SLOT) continue
      const index = keyIndexOf(plan, seq, row)
      if (index < (plan.promptStarts[seq] as number)) virtual.push(row)
      else if (index < (plan.promptEnds[seq] as number)) prompt.push(row)
      else calls.push([row])
    }
  }
  return calls.filter((call) => call.length > 0)
}

/** Index of a token row among the keys of its sequence. */
export function keyIndexOf(plan: StepPlan, seq: number, row: number): number {
  return (plan.contextLens[seq] as number) - (plan.queryStart[seq + 1] as number) + row
}
