// Whole decode steps of the backend at one context length, against the bytes such a step must read.

import type { CompiledAdapter } from '../../src/adapter/primitive.ts'
import { type CudaBackend, createCudaBackend } from '../../src/backend/cuda/cuda-backend.ts'
import { createStepPlan, type StepPlan } from '../../src/core/step-plan.ts'
import type { ModelSource } from '../../src/model/model-source.ts'

const BLOCK_SIZE = 16
const WARM_UPS = 4
const REPEATS = 15
const KV_BYTES = 2

/** Bytes a second that a read of this device's memory reached. */
const READ_BYTES_PER_MS = 3.0e9

export interface StepTimes {
  readonly numRows: number
  readonly numAdapters: number
  /** Median wall milliseconds of `execute`, argmax on the device. */
  readonly stepMs: number
  /** Part of it before the host waits: planning and launching. */
  readonly hostMs: number
  readonly floorMs: number
}

export class StepBench {
  readonly #backend: CudaBackend
  readonly #model: ModelSource
  readonly #context: number
  readonly #slots: readonly number[]
  readonly #adapterBytes: number

  private constructor(backend: CudaBackend, model: ModelSource, context: number, adapters: readonly CompiledAdapter[]) {
    this.#backend = backend
    this.#model = model
    this.#context = context
    this.#adapterBytes = adapters[0]?.numBytes ?? 0
    this.#slots = adapters.map((adapter) => {
      const slot = backend.loadAdapter(adapter)
      if (slot === null) throw new Error('the budget holds every adapter')
      while (!backend.continueLoad(slot, Number.POSITIVE_INFINITY));
      return slot
    })
  }

  static async create(
    model: ModelSource,
    adapters: readonly CompiledAdapter[],
    context: number,
    maxRows: number,
  ): Promise<StepBench> {
    const blocksPerSeq = Math.ceil((context + 1) / BLOCK_SIZE)
    const backend = await createCudaBackend({
      model,
      blockSize: BLOCK_SIZE,
      kvCache: { numBlocks: maxRows * blocksPerSeq },
      // Slabs are rounded up a little and hold tables beside the weights.
      adapterBytes: Math.max(
        1 << 20,
        adapters.reduce((sum, { numBytes }) => sum + numBytes + (1 << 20), 0),
      ),
      dtype: 'bfloat16',
      maxModelLen: context + 1,
    })
    return new StepBench(backend, model, context, adapters)
  }

  async measure(numRows: number, numAdapters: number): Promise<StepTimes> {
    const plan = this.#plan(numRows, numAdapters)
    const times: number[] = []
    const hostTimes: number[] = []
    for (let i = 0; i < WARM_UPS + REPEATS; i++) {
      const started = performance.now()
      await this.#backend.execute(plan)
      if (i < WARM_UPS) continue
      times.push(performance.now() - started)
      hostTimes.push(this.#backend.lastLaunchMs)
    }
    return {
      numRows,
      numAdapters,
      stepMs: median(times),
      hostMs: median(hostTimes),
      floorMs: this.#floorBytes(numRows, numAdapters) / READ_BYTES_PER_MS,
    }
  }

  dispose(): Promise<void> {
    return this.#backend.dispose()
  }

  /** Weights but the embedding table, keys and values of every row, and each adapter in the step once. */
  #floorBytes(numRows: number, numAdapters: number): number {
    const { numLayers, numKvHeads, headDim, vocabSize, hiddenSize } = this.#model.spec
    const weights = this.#model.totalBytes - vocabSize * hiddenSize * KV_BYTES
    const kv = 2 * numLayers * numKvHeads * headDim * KV_BYTES * this.#context * numRows
    return weights + kv + numAdapters * this.#adapterBytes
  }

  #plan(numRows: number, numAdapters: number): StepPlan {
    const blocksPerSeq = Math.ceil((this.#context + 1) / BLOCK_SIZE)
    const plan = createStepPlan({ maxNumBatchedTokens: numRows, maxNumSeqs: numRows, maxBlocksPerSeq: blocksPerSeq })
    Object.assign(plan, { numTokens: numRows, numSeqs: numRows, numLogitRows: numRows, needsLogits: false })
    for (let row = 0; row < numRows; row++) {
      plan.tokenIds[row] = 1 + row
      plan.positions[row] = this.#context
      plan.queryStart[row + 1] = row + 1
      plan.contextLens[row] = this.#context + 1
      plan.promptEnds[row] = this.#context + 1
      for (let i = 0; i < blocksPerSeq; i++) plan.blockTables[row * blocksPerSeq + i] = i * numRows + row
      const lastBlock = plan.blockTables[row * blocksPerSeq + Math.floor(this.#context / BLOCK_SIZE)] as number
      plan.slotMapping[row] = lastBlock * BLOCK_SIZE + (this.#context % BLOCK_SIZE)
      const adapter = Math.floor((row * numAdapters) / numRows)
      plan.adapterSlotOfToken[row] = numAdapters === 0 ? -1 : (this.#slots[adapter] as number)
      plan.logitRows[row] = row
    }
    return plan
  }
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN
}
