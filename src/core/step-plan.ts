// The seam between engine and backend: one forward pass described by plain typed arrays, allocated once and reused.
//
//   queryStart    0        3  4        7         numTokens = 7, numSeqs = 3
//   tokenIds      a  a  a  b  c  c  c            a: prompt chunk, b: decode, c: prompt chunk
//   logitRows              3        6            tokens whose next-token logits are wanted
//
// Sequences are ordered by adapter slot, base first, so that the rows of one adapter are contiguous.
//
// Virtual tokens of an adapter (adapter/primitive.ts) are the leading positions of its sequences. Where the adapter gives embeddings
// they are rows like any other, with a negative id; where it gives keys and values they are no rows:
//
//   position      0   1   2 | 3   4   5          numGivenTokens = 3: the adapter's keys and values 0..2 are written to the KV
//                 given       rows of the step    positions just before the sequence's first row, before any attention

export interface StepPlan {
  /** Counts up by one per step; for logs and tests. */
  stepId: number
  numTokens: number
  numSeqs: number
  numLogitRows: number
  /** Row stride of `blockTables`. */
  readonly maxBlocksPerSeq: number
  /** Negative = `virtualTokenId` of the sequence's adapter, which gives the embedding. */
  readonly tokenIds: Int32Array // [numTokens]
  readonly positions: Int32Array // [numTokens]
  /** `blockId * blockSize + offset` where the token's keys and values go. */
  readonly slotMapping: Int32Array // [numTokens]
  /** First token row of each sequence; the last entry is numTokens. */
  readonly queryStart: Int32Array // [numSeqs + 1]
  /** Keys visible to the sequence's last token of this step, itself included. */
  readonly contextLens: Int32Array // [numSeqs]
  readonly blockTables: Int32Array // [numSeqs, maxBlocksPerSeq]
  /** Index among the sequence's keys of the first prompt token (virtual tokens come before it) and of the first generated one. */
  readonly promptStarts: Int32Array // [numSeqs]
  readonly promptEnds: Int32Array // [numSeqs]
  /**
   * Index of a token among the sequence's keys less its position; 0 unless a prefix comes before position 0 (`no-shift`). That many
   * leading keys are visible from everywhere, whatever the sliding window.
   */
  readonly positionOffsets: Int32Array // [numSeqs]
  /** Positions before the sequence's first row that this step fills from its adapter's prefix; mostly 0. */
  readonly numGivenTokens: Int32Array // [numSeqs]
  /** NO_ADAPTER_SLOT for the base model. Per token: an activated LoRA starts inside a sequence. */
  readonly adapterSlotOfToken: Int32Array // [numTokens]
  /** Ascending token rows. */
  readonly logitRows: Int32Array // [numLogitRows]
  /** False when every logit row wants only its argmax; the backend may then answer with tokens. */
  needsLogits: boolean
}

export interface StepPlanLimits {
  readonly maxNumBatchedTokens: number
  readonly maxNumSeqs: number
  readonly maxBlocksPerSeq: number
}

/** Allocates a plan large enough for every step under `limits`; counts start at zero. */
export function createStepPlan(limits: StepPlanLimits): StepPlan {
  const { maxNumBatchedTokens: tokens, maxNumSeqs: seqs, maxBlocksPerSeq } = limits
  return {
    stepId: 0,
    numTokens: 0,
    numSeqs: 0,
    numLogitRows: 0,
    maxBlocksPerSeq,
    tokenIds: new Int32Array(tokens),
    positions: new Int32Array(tokens),
    slotMapping: new Int32Array(tokens),
    queryStart: new Int32Array(seqs + 1),
    contextLens: new Int32Array(seqs),
    blockTables: new Int32Array(seqs * maxBlocksPerSeq),
    promptStarts: new Int32Array(seqs),
    promptEnds: new Int32Array(seqs),
    positionOffsets: new Int32Array(seqs),
    numGivenTokens: new Int32Array(seqs),
    adapterSlotOfToken: new Int32Array(tokens),
    logitRows: new Int32Array(tokens),
    needsLogits: true,
  }
}

/** Id that stands for an adapter's virtual token `index`; its own inverse. Below zero, where no vocabulary has ids. */
export function virtualTokenId(index: number): number {
  return -1 - index
}

/** A run of keys of one sequence that an adapter's prefix fills. */
export interface GivenRun {
  readonly adapterSlot: number
  /** Of the prefix. */
  readonly firstToken: number
  /** `blockId * blockSize + offset` of each token, ascending. */
  readonly kvSlots: readonly number[]
}

/** The runs of a step, for a backend to write before any attention. */
export function givenRuns(plan: StepPlan, blockSize: number): GivenRun[] {
  const runs: GivenRun[] = []
  for (let seq = 0; seq < plan.numSeqs; seq++) {
    const numGiven = plan.numGivenTokens[seq] as number
    if (numGiven === 0) continue
    const firstRow = plan.queryStart[seq] as number
    const numRows = (plan.queryStart[seq + 1] as number) - firstRow
    const firstToken = (plan.contextLens[seq] as number) - numRows - numGiven
    const kvSlots = Array.from({ length: numGiven }, (_, i) => {
      const token = firstToken + i
      const block = plan.blockTables[seq * plan.maxBlocksPerSeq + Math.floor(token / blockSize)] as number
      return block * blockSize + (token % blockSize)
    })
    runs.push({ adapterSlot: plan.adapterSlotOfToken[firstRow] as number, firstToken, kvSlots })
  }
  return runs
}

/** What a backend answers. The arrays are its own and valid until the next `execute`. */
export type StepOutput =
  | { readonly kind: 'logits'; readonly logits: Float32Array /* [numLogitRows, vocabSize] */ }
  | { readonly kind: 'tokens'; readonly tokenIds: Int32Array /* [numLogitRows], argmax */ }
