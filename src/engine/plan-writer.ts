// Turns the requests of one step into the typed arrays a backend reads.

import { NO_ADAPTER_SLOT } from '../core/ids.ts'
import { invariant } from '../core/invariant.ts'
import { isPlainGreedy } from '../core/sampling-params.ts'
import type { StepPlan } from '../core/step-plan.ts'
import { compareRequests, type EngineRequest } from './request.ts'

/** Base rows first, then adapter by adapter, so that the rows of one adapter are one segment. Sorts in place. */
export function orderByAdapter(scheduled: EngineRequest[]): void {
  scheduled.sort((a, b) => a.adapterSlot - b.adapterSlot || compareRequests(a, b))
}

/** Fills `plan` and each request's logit-row fields from its `numScheduledTokens`. */
export function writeStepPlan(plan: StepPlan, scheduled: readonly EngineRequest[], blockSize: number): void {
  plan.stepId++
  plan.numTokens = 0
  plan.numSeqs = 0
  plan.numLogitRows = 0
  plan.needsLogits = false
  for (const request of scheduled) writeSequence(plan, request, blockSize)
  plan.queryStart[plan.numSeqs] = plan.numTokens
}

function writeSequence(plan: StepPlan, request: EngineRequest, blockSize: number): void {
  const firstRow = plan.numTokens
  const start = request.nextPosition
  const end = start + request.numScheduledTokens
  const { blockTable } = request.kv
  const { positionOffset } = request.adapter
  for (let position = start, row = firstRow; position < end; position++, row++) {
    const block = blockTable[Math.floor(position / blockSize)] as number
    plan.tokenIds[row] = request.tokens[position] as number
    plan.positions[row] = position - positionOffset
    plan.slotMapping[row] = block * blockSize + (position % blockSize)
    plan.adapterSlotOfToken[row] = position < request.adapter.activationStart ? NO_ADAPTER_SLOT : request.adapterSlot
  }
  const seq = plan.numSeqs++
  plan.queryStart[seq] = firstRow
  plan.contextLens[seq] = end
  plan.numGivenTokens[seq] = start - request.numComputedTokens
  plan.promptStarts[seq] = request.promptStart
  plan.promptEnds[seq] = request.promptStart + request.numPromptTokens
  plan.positionOffsets[seq] = positionOffset
  plan.numTokens += request.numScheduledTokens
  const numBlocks = Math.ceil(end / blockSize)
  invariant(numBlocks <= request.kv.numBlocks, `request ${request.requestId} runs past its blocks`)
  invariant(numBlocks <= plan.maxBlocksPerSeq, `request ${request.requestId} is longer than the plan allows`)
  const offset = seq * plan.maxBlocksPerSeq
  for (let i = 0; i < numBlocks; i++) plan.blockTables[offset + i] = blockTable[i] as number
  writeLogitRows(plan, request, firstRow, start, end)
}

function writeLogitRows(plan: StepPlan, request: EngineRequest, firstRow: number, start: number, end: number): void {
  request.firstLogitRow = plan.numLogitRows
  request.numScoreRows = 0
  const { promptStart, numPromptTokens } = request
  if (request.promptLogprobs !== null) {
    // A preempted request computes its prompt again; what was scored before is not scored twice.
    const firstUnscored = Math.max(start, promptStart + request.promptLogprobs.length)
    const lastUnscored = Math.min(end, promptStart + numPromptTokens - 1)
    for (let position = firstUnscored; position < lastUnscored; position++) {
      plan.logitRows[plan.numLogitRows++] = firstRow + position - start
      request.numScoreRows++
    }
  }
  request.isSampled = end === request.numTokens && request.sampling.maxTokens > 0
  if (request.isSampled) plan.logitRows[plan.numLogitRows++] = firstRow + end - 1 - start
  const isArgmaxOnly = !request.isSampled || isPlainGreedy(request.sampling, request.numOutputTokens)
  if (request.numScoreRows > 0 || !isArgmaxOnly) plan.needsLogits = true
}
