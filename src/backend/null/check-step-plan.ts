import { invariant } from '../../core/invariant.ts'
import { givenRuns, type StepPlan } from '../../core/step-plan.ts'
import type { BackendCapacity } from '../backend.ts'

/** Every rule a plan keeps, so that a scheduling defect is named in the step that makes it. */
export function checkStepPlan(plan: StepPlan, capacity: BackendCapacity): void {
  invariant(plan.numSeqs > 0 && plan.numTokens >= plan.numSeqs, `${plan.numSeqs} sequences, ${plan.numTokens} tokens`)
  invariant(plan.queryStart[0] === 0, 'the first sequence starts at row 0')
  invariant(plan.queryStart[plan.numSeqs] === plan.numTokens, 'the last query start is the number of tokens')
  for (let seq = 0; seq < plan.numSeqs; seq++) checkSequence(plan, seq, capacity)
  checkWritesAreDistinct(plan, capacity)
  for (let i = 0; i < plan.numLogitRows; i++) {
    const row = plan.logitRows[i] as number
    invariant(row >= 0 && row < plan.numTokens, `logit row ${row} of ${plan.numTokens} tokens`)
    invariant(i === 0 || row > (plan.logitRows[i - 1] as number), 'logit rows ascend')
  }
}

function checkSequence(plan: StepPlan, seq: number, capacity: BackendCapacity): void {
  const { blockSize, numBlocks } = capacity
  const start = plan.queryStart[seq] as number
  const end = plan.queryStart[seq + 1] as number
  invariant(end > start, `sequence ${seq} has no tokens`)
  const numGiven = plan.numGivenTokens[seq] as number
  const offset = plan.positionOffsets[seq] as number
  const first = (plan.positions[start] as number) + offset
  invariant(numGiven >= 0 && numGiven <= first, `sequence ${seq}: ${numGiven} given tokens`)
  invariant(first + end - start === plan.contextLens[seq], `sequence ${seq}: context length`)
  invariant((plan.promptStarts[seq] as number) < (plan.promptEnds[seq] as number), `sequence ${seq}: a prompt has tokens`)
  for (let row = start; row < end; row++) {
    const position = (plan.positions[row] as number) + offset
    invariant(position === first + row - start, `sequence ${seq}: positions are consecutive`)
    const block = plan.blockTables[seq * plan.maxBlocksPerSeq + Math.floor(position / blockSize)] as number
    invariant(block >= 0 && block < numBlocks, `sequence ${seq}: block ${block} of ${numBlocks}`)
    invariant(plan.slotMapping[row] === block * blockSize + (position % blockSize), `sequence ${seq}: slot mapping`)
  }
}

function checkWritesAreDistinct(plan: StepPlan, { blockSize }: BackendCapacity): void {
  const given = givenRuns(plan, blockSize).flatMap(({ kvSlots }) => kvSlots)
  const written = new Set<number>(given)
  for (let row = 0; row < plan.numTokens; row++) written.add(plan.slotMapping[row] as number)
  invariant(written.size === given.length + plan.numTokens, 'two tokens of one step are written to one place')
}
