// The seam between engine and backend: one forward pass described by plain typed arrays, allocated once and reused.
//
//   queryStart    0        3  4        7         numTokens = 7, numSeqs = 3
//   tokenIds      a  a  a  b  c  c  c            a: prompt chunk, b: decode, c: prompt chunk
//   logitRows              3        6            tokens whose next-token logits are wanted
//
// Sequences are ordered by adapter slot, base first, so that the rows of one adapter are contiguous.

export interface StepPlan {
  /** Counts up by one per step; for logs and tests. */
  stepId: number
  numTokens: number
  numSeqs: number
  numLogitRows: number
  /** Row stride of `blockTables`. */
  readonly maxBlocksPerSeq: number
  readonly tokenIds: Int32Array // [numTokens]
  readonly positions: Int32Array // [numTokens]
  /** `blockId * blockSize + offset` where the token's keys and values go. */
  readonly slotMapping: Int32Array // [numTokens]
  /** First token row of each sequence; the last entry is numTokens. */
  readonly queryStart: Int32Array // [numSeqs + 1]
  /** Keys visible to the sequence's last token of this step, itself included. */
  readonly contextLens: Int32Array // [numSeqs]
  readonly blockTables: Int32Array // [numSeqs, maxBlocksPerSeq]
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
    adapterSlotOfToken: new Int32Array(tokens),
    logitRows: new Int32Array(tokens),
    needsLogits: true,
  }
}

/** What a backend answers. The arrays are its own and valid until the next `execute`. */
export type StepOutput =
  | { readonly kind: 'logits'; readonly logits: Float32Array /* [numLogitRows, vocabSize] */ }
  | { readonly kind: 'tokens'; readonly tokenIds: Int32Array /* [numLogitRows], argmax */ }
