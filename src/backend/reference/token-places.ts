import { keyIndexOf } from '../../adapter/step-calls.ts'
import { invariant } from '../../core/invariant.ts'
import type { StepPlan } from '../../core/step-plan.ts'
import type { KvPool } from './kv-pool.ts'

/** Where a token row of the step is in its sequence. */
export interface TokenPlace {
  /** KV slots of its sequence up to and including itself. */
  readonly kvSlots: readonly number[]
  /** Leading keys outside the order of positions: no window passes over them. */
  readonly numAlwaysVisible: number
  /** Negative for virtual tokens, `promptLength` and more for generated ones. */
  readonly promptIndex: number
  readonly promptLength: number
}

/** By token row. */
export function findTokenPlaces(plan: StepPlan, pool: KvPool): readonly TokenPlace[] {
  const places: TokenPlace[] = []
  for (let seq = 0; seq < plan.numSeqs; seq++) {
    const kvSlots = Array.from({ length: plan.contextLens[seq] as number }, (_, key) => {
      const block = plan.blockTables[seq * plan.maxBlocksPerSeq + Math.floor(key / pool.blockSize)] as number
      invariant(block >= 0 && block < pool.numBlocks, `block ${block} of sequence ${seq} is in the pool`)
      return block * pool.blockSize + (key % pool.blockSize)
    })
    const promptStart = plan.promptStarts[seq] as number
    for (let token = plan.queryStart[seq] as number; token < (plan.queryStart[seq + 1] as number); token++) {
      const keyIndex = keyIndexOf(plan, seq, token)
      const ofToken = kvSlots.slice(0, keyIndex + 1)
      invariant(ofToken.at(-1) === plan.slotMapping[token], `token ${token} is written where its block table reads it`)
      places.push({
        kvSlots: ofToken,
        numAlwaysVisible: plan.positionOffsets[seq] as number,
        promptIndex: keyIndex - promptStart,
        promptLength: (plan.promptEnds[seq] as number) - promptStart,
      })
    }
  }
  invariant(places.length === plan.numTokens, 'every token belongs to a sequence')
  return places
}
