// Page tables, masks and row maps of one step, as graph-attention.ts reads them.

import { invariant } from '../../core/invariant.ts'
import type { StepPlan } from '../../core/step-plan.ts'
import type { DecoderSpec } from '../../model/decoder-spec.ts'
import type { Feeds } from './feeds.ts'
import { distinctWindows, maskName } from './graph-context.ts'
import type { KvPool } from './kv-pool.ts'

/**
 * Added to scores of keys a token must not see: far below any score, yet finite, so that a padding row whose keys are all
 * masked gives a uniform softmax and not NaN.
 */
const MASKED = -1e30

/** Sequences of one attention family, by index in the plan. */
interface Family {
  readonly name: 'decode' | 'chunk'
  readonly seqs: readonly number[]
  /**
   * Rows of its tensors. A family without sequences has one that reads the zero block and that nobody reads: onnxruntime
   * crashes or fails on empty batches in several operators.
   */
  readonly numRows: number
  /** Query rows a sequence, padded. */
  readonly queries: number
}

export function hasChunks(plan: StepPlan): boolean {
  return plan.numTokens > plan.numSeqs
}

/** `numGated` answers how many leading keys of a sequence its adapter gates. */
export function feedAttention(
  feeds: Feeds,
  spec: DecoderSpec,
  pool: KvPool,
  plan: StepPlan,
  numGated: ((seq: number) => number) | null,
): void {
  const decode: number[] = []
  const chunk: number[] = []
  for (let seq = 0; seq < plan.numSeqs; seq++) (numQueries(plan, seq) === 1 ? decode : chunk).push(seq)
  const families: readonly Family[] = [
    { name: 'decode', seqs: decode, numRows: Math.max(1, decode.length), queries: 1 },
    {
      name: 'chunk',
      seqs: chunk,
      numRows: chunk.length,
      queries: chunk.reduce((most, seq) => Math.max(most, numQueries(plan, seq)), 0),
    },
  ]
  for (const family of families) {
    if (family.name === 'chunk' && chunk.length === 0) break
    const numPast = feedPages(feeds, family, spec, pool, plan)
    const counts = feeds.long(`${family.name}.keyCounts`, [2])
    counts.set([numPast, 0, family.queries, 0])
    for (const window of distinctWindows(spec)) feedMask(feeds, family, window, numPast, plan)
    if (numGated !== null) feedGated(feeds, family, numPast, numGated)
  }
  if (chunk.length > 0) feedRowMaps(feeds, families, plan)
}

/** Answers the padded number of past tokens, at least one block: an empty product fails. */
function feedPages(feeds: Feeds, family: Family, spec: DecoderSpec, pool: KvPool, plan: StepPlan): number {
  const { name, seqs, numRows } = family
  const { numKvHeads } = spec
  const numBlocks = seqs.reduce((most, seq) => Math.max(most, blocksOf(plan, seq, pool.blockSize)), 1)
  const dims = [numRows, numKvHeads, numBlocks]
  const keyPages = feeds.int(`${name}.keyPages`, dims).fill(pool.keyPage(pool.zeroBlock, 0))
  const valuePages = feeds.int(`${name}.valuePages`, dims).fill(pool.keyPage(pool.zeroBlock, 0))
  let index = 0
  for (const seq of seqs) {
    const used = blocksOf(plan, seq, pool.blockSize)
    for (let head = 0; head < numKvHeads; head++) {
      for (let i = 0; i < used; i++) {
        const block = plan.blockTables[seq * plan.maxBlocksPerSeq + i] as number
        keyPages[index + i] = pool.keyPage(block, head)
        valuePages[index + i] = pool.valuePage(block, head)
      }
      index += numBlocks
    }
  }
  return numBlocks * pool.blockSize
}

/** One for past keys that a gate of the sequence's adapter scales. */
function feedGated(feeds: Feeds, { name, seqs, numRows }: Family, numPast: number, numGated: (seq: number) => number): void {
  const dims = name === 'decode' ? [numRows, 1, 1, numPast] : [numRows, 1, 1, 1, numPast]
  const isGated = feeds.bool(`${name}.isGated`, dims).fill(0)
  seqs.forEach((seq, row) => {
    isGated.fill(1, row * numPast, row * numPast + numGated(seq))
  })
}

/** Zero where a query sees a key: past keys by position, then the sequence's own of this step; keys outside the positions always. */
function feedMask(feeds: Feeds, family: Family, window: number | null, numPast: number, plan: StepPlan): void {
  const { name, seqs, numRows, queries } = family
  const numKeys = numPast + queries
  const dims = name === 'decode' ? [numRows, 1, 1, numKeys] : [numRows, 1, 1, queries, numKeys]
  const mask = feeds.float(maskName(name, window), dims)
  mask.fill(MASKED)
  seqs.forEach((seq, row) => {
    const firstPosition = pastOf(plan, seq)
    const numOutside = plan.positionOffsets[seq] as number
    for (let query = 0; query < numQueries(plan, seq); query++) {
      const end = firstPosition + query + 1
      const start = window === null ? 0 : Math.max(numOutside, end - window)
      const offset = (row * queries + query) * numKeys
      mask.fill(0, offset, offset + numOutside)
      if (start < firstPosition) mask.fill(0, offset + start, offset + firstPosition)
      mask.fill(0, offset + numPast + Math.max(0, start - firstPosition), offset + numPast + query + 1)
    }
  })
}

/** Token rows to family rows and back. */
function feedRowMaps(feeds: Feeds, families: readonly Family[], plan: StepPlan): void {
  const rowOfToken = feeds.int('attention.rowOfToken', [plan.numTokens])
  let familyStart = 0
  for (const { name, seqs, numRows, queries } of families) {
    // Padding queries compute token row 0 again and nobody reads them.
    const queryTokens = feeds.int(`${name}.queryTokens`, name === 'decode' ? [numRows] : [numRows, queries]).fill(0)
    seqs.forEach((seq, row) => {
      const start = plan.queryStart[seq] as number
      for (let query = 0; query < numQueries(plan, seq); query++) {
        queryTokens[row * queries + query] = start + query
        rowOfToken[start + query] = familyStart + row * queries + query
      }
    })
    familyStart += numRows * queries
  }
}

function numQueries(plan: StepPlan, seq: number): number {
  const count = (plan.queryStart[seq + 1] as number) - (plan.queryStart[seq] as number)
  invariant(count > 0, `sequence ${seq} computes a token`)
  return count
}

/** Tokens of the sequence that are in the pool. */
function pastOf(plan: StepPlan, seq: number): number {
  return (plan.contextLens[seq] as number) - numQueries(plan, seq)
}

function blocksOf(plan: StepPlan, seq: number, blockSize: number): number {
  return Math.ceil(pastOf(plan, seq) / blockSize)
}
