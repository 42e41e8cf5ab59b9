// Builds step plans for sequences without the engine: a test decides exactly which tokens share a step and which blocks hold them.

import assert from 'node:assert/strict'
import type { VirtualTokens } from '../../src/adapter/primitive.ts'
import { countVirtualTokens } from '../../src/adapter/virtual-tokens.ts'
import type { Backend } from '../../src/backend/backend.ts'
import { NO_ADAPTER_SLOT } from '../../src/core/ids.ts'
import { createStepPlan, type StepPlan, virtualTokenId } from '../../src/core/step-plan.ts'

export interface SequenceOptions {
  /** Default: the base model. */
  readonly adapterSlot?: number
  /** Position from which the adapter acts; default: everywhere. */
  readonly activationStart?: number
  /** Of the adapter; they come before the prompt, in `tokens`, too. */
  readonly virtualTokens?: VirtualTokens | null
  /** Takes the first `numTokens` tokens' blocks from `of` instead of computing them; whole blocks only. */
  readonly prefix?: { readonly of: DrivenSequence; readonly numTokens: number }
}

export interface DrivenSequence {
  readonly tokens: number[]
  readonly blocks: number[]
  readonly adapterSlot: number
  readonly activationStart: number
  /** Leading tokens that no row computes. */
  readonly numGiven: number
  readonly promptStart: number
  readonly promptEnd: number
  readonly positionOffset: number
  numComputed: number
}

export interface Chunk {
  readonly sequence: DrivenSequence
  /** Tokens computed this step; default: all that are left. */
  readonly numTokens?: number
  /** Default: logits of the chunk's last token only. */
  readonly allLogits?: boolean
}

export interface GenerateOptions {
  /** Most prompt tokens of one sequence in a step; default: the whole prompt. */
  readonly chunkSize?: number
  /** Token ids that greedy choice passes over; default: none. */
  readonly banned?: readonly number[]
}

export interface Generated {
  readonly tokens: readonly number[]
  /** Logits each token was taken from. Empty rows where the backend answered with tokens. */
  readonly logits: readonly Float32Array[]
}

export class PlanDriver {
  readonly #backend: Backend
  readonly #plan: StepPlan
  /** Blocks in the order they are handed out. */
  readonly #freeBlocks: number[]

  /** `blockOrder` lists every block of the pool; default: descending, so that block ids never equal positions by luck. */
  constructor(backend: Backend, blockOrder?: readonly number[]) {
    const { numBlocks } = backend.capacity
    this.#backend = backend
    this.#plan = createStepPlan({ maxNumBatchedTokens: 512, maxNumSeqs: 32, maxBlocksPerSeq: numBlocks })
    this.#freeBlocks = blockOrder?.slice() ?? Array.from({ length: numBlocks }, (_, i) => numBlocks - 1 - i)
  }

  add(prompt: readonly number[], options: SequenceOptions = {}): DrivenSequence {
    const { prefix } = options
    const { blockSize } = this.#backend.capacity
    if (prefix !== undefined) assert.equal(prefix.numTokens % blockSize, 0, 'only whole blocks are shared')
    const { numVirtualTokens, numGivenTokens, positionOffset } = countVirtualTokens(options.virtualTokens ?? null)
    return {
      tokens: [...Array.from({ length: numVirtualTokens }, (_, i) => virtualTokenId(i)), ...prompt],
      blocks: prefix === undefined ? [] : prefix.of.blocks.slice(0, prefix.numTokens / blockSize),
      adapterSlot: options.adapterSlot ?? NO_ADAPTER_SLOT,
      activationStart: options.activationStart ?? 0,
      numGiven: numGivenTokens,
      promptStart: numVirtualTokens,
      promptEnd: numVirtualTokens + prompt.length,
      positionOffset,
      numComputed: prefix?.numTokens ?? 0,
    }
  }

  /** One step. Returns logit rows of each chunk, copied, in the order of `chunks`. */
  async step(chunks: readonly Chunk[]): Promise<readonly (readonly Float32Array[])[]> {
    const ordered = this.#writePlan(chunks, true)
    const output = await this.#backend.execute(this.#plan)
    assert.equal(output.kind, 'logits', 'a step that needs logits is answered with logits')
    if (output.kind !== 'logits') return []
    const { vocabSize } = this.#backend
    let row = 0
    const rowsOf = new Map<Chunk, Float32Array[]>()
    for (const { chunk, numRows } of ordered) {
      const rows: Float32Array[] = []
      for (let i = 0; i < numRows; i++, row++) rows.push(output.logits.slice(row * vocabSize, (row + 1) * vocabSize))
      rowsOf.set(chunk, rows)
    }
    return chunks.map((chunk) => rowsOf.get(chunk) ?? [])
  }

  /** One step that wants argmax only: the next token of each chunk. */
  async stepTokens(chunks: readonly Chunk[]): Promise<readonly number[]> {
    const ordered = this.#writePlan(chunks, false)
    const output = await this.#backend.execute(this.#plan)
    const { vocabSize } = this.#backend
    const next = new Map<Chunk, number>()
    ordered.forEach(({ chunk }, row) => {
      const logits = output.kind === 'logits' ? output.logits.subarray(row * vocabSize, (row + 1) * vocabSize) : null
      next.set(chunk, output.kind === 'tokens' ? output.tokenIds[row]! : argmax(logits!))
    })
    return chunks.map((chunk) => next.get(chunk)!)
  }

  /** Greedy decoding of all sequences together, one step for all of them at a time. */
  async generate(
    sequences: readonly DrivenSequence[],
    numTokens: number,
    options: GenerateOptions = {},
  ): Promise<readonly Generated[]> {
    const generated = sequences.map(() => ({ tokens: [] as number[], logits: [] as Float32Array[] }))
    for (;;) {
      const active = sequences.map((_, i) => i).filter((i) => generated[i]!.tokens.length < numTokens)
      if (active.length === 0) return generated
      const chunks = active.map((i) => {
        const sequence = sequences[i]!
        const left = sequence.tokens.length - Math.max(sequence.numComputed, sequence.numGiven)
        return { sequence, numTokens: Math.min(left, options.chunkSize ?? left) }
      })
      const rows = await this.step(chunks)
      active.forEach((i, at) => {
        const sequence = sequences[i]!
        if (sequence.numComputed < sequence.tokens.length) return
        const logits = rows[at]![0]!
        const token = argmax(withoutTokens(logits, options.banned ?? []))
        sequence.tokens.push(token)
        generated[i]!.tokens.push(token)
        generated[i]!.logits.push(logits)
      })
    }
  }

  /** Gives the blocks back to the end of the list. Blocks taken from another sequence stay with it. */
  release(sequence: DrivenSequence, numSharedTokens = 0): void {
    this.#freeBlocks.push(...sequence.blocks.splice(numSharedTokens / this.#backend.capacity.blockSize))
  }

  #writePlan(chunks: readonly Chunk[], needsLogits: boolean): readonly { chunk: Chunk; numRows: number }[] {
    const plan = this.#plan
    Object.assign(plan, { stepId: plan.stepId + 1, numTokens: 0, numSeqs: 0, numLogitRows: 0, needsLogits })
    // Sequences come by adapter slot, base first, as the engine orders them.
    const ordered = chunks.toSorted((a, b) => a.sequence.adapterSlot - b.sequence.adapterSlot)
    const written = ordered.map((chunk) => ({ chunk, numRows: this.#writeChunk(chunk) }))
    plan.queryStart[plan.numSeqs] = plan.numTokens
    return written
  }

  #writeChunk({ sequence, numTokens, allLogits }: Chunk): number {
    const plan = this.#plan
    const { blockSize } = this.#backend.capacity
    const start = Math.max(sequence.numComputed, sequence.numGiven)
    const end = start + (numTokens ?? sequence.tokens.length - start)
    while (sequence.blocks.length * blockSize < end) {
      const block = this.#freeBlocks.shift()
      assert.notEqual(block, undefined, 'the pool is large enough for the test')
      sequence.blocks.push(block!)
    }
    const seq = plan.numSeqs++
    plan.queryStart[seq] = plan.numTokens
    plan.contextLens[seq] = end
    plan.numGivenTokens[seq] = start - sequence.numComputed
    plan.promptStarts[seq] = sequence.promptStart
    plan.promptEnds[seq] = sequence.promptEnd
    plan.positionOffsets[seq] = sequence.positionOffset
    plan.blockTables.set(sequence.blocks, seq * plan.maxBlocksPerSeq)
    const firstLogitRow = plan.numLogitRows
    for (let position = start; position < end; position++) {
      const row = plan.numTokens++
      plan.tokenIds[row] = sequence.tokens[position]!
      plan.positions[row] = position - sequence.positionOffset
      plan.slotMapping[row] = sequence.blocks[Math.floor(position / blockSize)]! * blockSize + (position % blockSize)
      plan.adapterSlotOfToken[row] = position < sequence.activationStart ? NO_ADAPTER_SLOT : sequence.adapterSlot
      if (allLogits || position === end - 1) plan.logitRows[plan.numLogitRows++] = row
    }
    sequence.numComputed = end
    return plan.numLogitRows - firstLogitRow
  }
}

function withoutTokens(logits: Float32Array, banned: readonly number[]): Float32Array {
  if (banned.length === 0) return logits
  const kept = logits.slice()
  for (const tokenId of banned) kept[tokenId] = Number.NEGATIVE_INFINITY
  return kept
}

export function argmax(values: Float32Array): number {
  return values.reduce((best, value, i) => (value > values[best]! ? i : best), 0)
}
