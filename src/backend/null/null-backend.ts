// No maths: the next token is a hash of everything attention would read. The pool holds one number a token, written where keys
// and values would go and read back through the block table, so a block that is lost, shared wrongly or overwritten changes
// the output exactly as it would on a real backend.

import type { CompiledAdapter } from '../../adapter/primitive.ts'
import { countVirtualTokens, type VirtualTokenCounts } from '../../adapter/virtual-tokens.ts'
import type { AdapterSlot } from '../../core/ids.ts'
import { adapterSlot, NO_ADAPTER_SLOT } from '../../core/ids.ts'
import { invariant } from '../../core/invariant.ts'
import { givenRuns, type StepOutput, type StepPlan, virtualTokenId } from '../../core/step-plan.ts'
import type { Backend, BackendCapacity } from '../backend.ts'
import { checkStepPlan } from './check-step-plan.ts'

/** Bytes a token takes in the pool: one 32-bit word in place of keys and values. */
const BYTES_PER_TOKEN = 4

/** Logit of the next token, of its runners-up (less one each), and of all other tokens: a winner no tolerance can miss. */
const WINNER_LOGIT = 12
const NUM_RUNNERS_UP = 7
const OTHER_LOGIT = -8

export interface NullBackendOptions {
  readonly vocabSize: number
  readonly blockSize: number
  readonly numBlocks: number
  /** Bytes adapters may take together. */
  readonly adapterBytes: number
  /** Pretended duration of a step; 0 = none. */
  readonly stepDelayMs: number
}

interface LoadedAdapter extends VirtualTokenCounts {
  readonly kvHash: number
  readonly outputHash: number
  readonly numBytes: number
}

export function createNullBackend(options: NullBackendOptions): Backend {
  return new NullBackend(options)
}

class NullBackend implements Backend {
  readonly name = 'null'
  readonly vocabSize: number
  readonly capacity: BackendCapacity
  readonly lastNativeMs = 0
  readonly #stepDelayMs: number
  readonly #pool: Int32Array // [numBlocks * blockSize]
  readonly #loaded: (LoadedAdapter | null)[] = []
  #loadedBytes = 0
  #logits = new Float32Array(0)
  #tokenIds = new Int32Array(0)

  constructor(options: NullBackendOptions) {
    const { vocabSize, blockSize, numBlocks, adapterBytes } = options
    this.vocabSize = vocabSize
    this.capacity = { numBlocks, blockSize, bytesPerBlock: blockSize * BYTES_PER_TOKEN, adapterBytes }
    this.#stepDelayMs = options.stepDelayMs
    this.#pool = new Int32Array(numBlocks * blockSize)
  }

  adapterBytes(adapter: CompiledAdapter): number {
    return adapter.numBytes
  }

  loadAdapter(adapter: CompiledAdapter): AdapterSlot | null {
    if (this.#loadedBytes + adapter.numBytes > this.capacity.adapterBytes) return null
    const free = this.#loaded.indexOf(null)
    const index = free < 0 ? this.#loaded.length : free
    // An adapter that changes no keys must leave the pool as the base model does.
    const kvHash = adapter.kvDigest === '' ? 0 : hashText(adapter.kvDigest)
    const counts = countVirtualTokens(adapter.virtualTokens)
    this.#loaded[index] = { kvHash, outputHash: hashText(adapter.digest), numBytes: adapter.numBytes, ...counts }
    this.#loadedBytes += adapter.numBytes
    return adapterSlot(index)
  }

  async prepare(): Promise<void> {}

  /** `loadAdapter` keeps the arrays as they are: there is nothing to copy. */
  continueLoad(): boolean {
    return true
  }

  unloadAdapter(slot: AdapterSlot): void {
    this.#loadedBytes -= this.#at(slot).numBytes
    this.#loaded[slot] = null
  }

  async execute(plan: StepPlan): Promise<StepOutput> {
    checkStepPlan(plan, this.capacity)
    if (this.#stepDelayMs > 0) await new Promise((resolve) => setTimeout(resolve, this.#stepDelayMs))
    this.#writeGiven(plan)
    for (let row = 0, seq = 0; row < plan.numTokens; row++) {
      while ((plan.queryStart[seq + 1] as number) <= row) seq++
      const token = plan.tokenIds[row] as number
      const position = (plan.positions[row] as number) + (plan.positionOffsets[seq] as number)
      const { kvHash, numVirtualTokens, numGivenTokens } = this.#at(plan.adapterSlotOfToken[row] as number)
      const isVirtual = position >= numGivenTokens && position < numVirtualTokens
      invariant(isVirtual ? token === virtualTokenId(position) : token >= 0, `token ${token} at position ${position}`)
      this.#pool[plan.slotMapping[row] as number] = kvOf(token, position, kvHash)
    }
    return plan.needsLogits ? this.#answerLogits(plan) : this.#answerTokens(plan)
  }

  async dispose(): Promise<void> {
    this.#loaded.length = 0
  }

  #writeGiven(plan: StepPlan): void {
    for (const { adapterSlot: slot, firstToken, kvSlots } of givenRuns(plan, this.capacity.blockSize)) {
      const { kvHash, numGivenTokens } = this.#at(slot)
      invariant(firstToken + kvSlots.length === numGivenTokens, 'rows start where the given tokens end')
      kvSlots.forEach((kvSlot, i) => {
        this.#pool[kvSlot] = kvOf(virtualTokenId(firstToken + i), firstToken + i, kvHash)
      })
    }
  }

  #answerTokens(plan: StepPlan): StepOutput {
    if (this.#tokenIds.length < plan.numLogitRows) this.#tokenIds = new Int32Array(plan.logitRows.length)
    this.#forEachLogitRow(plan, (index, state) => {
      this.#tokenIds[index] = this.#nextToken(state)
    })
    return { kind: 'tokens', tokenIds: this.#tokenIds.subarray(0, plan.numLogitRows) }
  }

  #answerLogits(plan: StepPlan): StepOutput {
    const size = plan.numLogitRows * this.vocabSize
    if (this.#logits.length < size) this.#logits = new Float32Array(size)
    const logits = this.#logits.subarray(0, size)
    logits.fill(OTHER_LOGIT)
    this.#forEachLogitRow(plan, (index, state) => {
      const offset = index * this.vocabSize
      for (let place = NUM_RUNNERS_UP; place > 0; place--)
        logits[offset + this.#nextToken(mix(state, place))] = WINNER_LOGIT - 2 - place
      logits[offset + this.#nextToken(state)] = WINNER_LOGIT
    })
    return { kind: 'logits', logits }
  }

  #nextToken(state: number): number {
    return (state >>> 0) % this.vocabSize
  }

  /** Calls back with a hash over all keys the row sees and the adapter it runs on. */
  #forEachLogitRow(plan: StepPlan, answer: (index: number, state: number) => void): void {
    const { blockSize } = this.capacity
    let seq = 0
    for (let index = 0; index < plan.numLogitRows; index++) {
      const row = plan.logitRows[index] as number
      while ((plan.queryStart[seq + 1] as number) <= row) seq++
      const table = seq * plan.maxBlocksPerSeq
      const contextLen = (plan.positions[row] as number) + (plan.positionOffsets[seq] as number) + 1
      let state = this.#at(plan.adapterSlotOfToken[row] as number).outputHash
      for (let position = 0, block = 0; position < contextLen; block++) {
        const first = (plan.blockTables[table + block] as number) * blockSize
        const end = Math.min(contextLen, position + blockSize)
        for (let slot = first; position < end; position++, slot++)
          state = (Math.imul(state, 31) + (this.#pool[slot] as number)) | 0
      }
      answer(index, mix(state, contextLen))
    }
  }

  #at(slot: number): LoadedAdapter {
    if (slot === NO_ADAPTER_SLOT) return BASE
    const adapter = this.#loaded[slot]
    invariant(adapter !== undefined && adapter !== null, `adapter slot ${slot} is empty`)
    return adapter
  }
}

const BASE: LoadedAdapter = { kvHash: 0, outputHash: 0, numBytes: 0, ...countVirtualTokens(null) }

function kvOf(token: number, position: number, kvHash: number): number {
  return mix(mix(mix(0x51ab, token), position), kvHash)
}

function hashText(text: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  return hash
}

function mix(state: number, word: number): number {
  let h = Math.imul(state ^ word, 0x9e3779b1)
  h = Math.imul(h ^ (h >>> 15), 0x85ebca6b)
  return h ^ (h >>> 13)
}
