// The seam to whatever computes. The engine calls these one at a time, from one thread, and never again after `dispose`.

import type { CompiledAdapter } from '../adapter/primitive.ts'
import type { AdapterSlot } from '../core/ids.ts'
import type { StepOutput, StepPlan } from '../core/step-plan.ts'

export interface BackendCapacity {
  /** KV blocks in the pool. */
  readonly numBlocks: number
  /** Tokens a block. */
  readonly blockSize: number
  /** Bytes of keys and values one block holds over all layers. */
  readonly bytesPerBlock: number
  /** Bytes adapters may take on the device together. */
  readonly adapterBytes: number
}

export interface Backend {
  /** `onnx`, `reference`, `null`, `cuda`. */
  readonly name: string
  readonly vocabSize: number
  /** Element type of weights and keys and values, where it is not float32. */
  readonly dtype?: string
  readonly capacity: BackendCapacity

  /** Bytes this adapter would take on the device. Pure. Throws ADAPTER_REFUSED where a primitive cannot be served exactly. */
  adapterBytes(adapter: CompiledAdapter): number
  /** Readies what steps with such an adapter need beside its weights, before anyone may name it. Rejects with BACKEND_FAILED. */
  prepare(adapter: CompiledAdapter): Promise<void>
  /**
   * Takes room on the device and begins the copy; null when the weights do not fit beside what is loaded. Steps may name the
   * slot at once, but one that does before `continueLoad` answered true waits for the rest of the copy.
   */
  loadAdapter(adapter: CompiledAdapter): AdapterSlot | null
  /** Copies about `maxBytes` more and answers whether all is there: a load is spread over steps, so that it delays none. */
  continueLoad(slot: AdapterSlot, maxBytes: number): boolean
  /** Frees the slot. No later step names it. */
  unloadAdapter(slot: AdapterSlot): void

  /**
   * One forward pass: writes keys and values of the plan's tokens at `slotMapping`, answers logits (or argmax) of `logitRows`.
   * Rejects with BACKEND_FAILED; the KV of this step's tokens is then undefined.
   */
  execute(plan: StepPlan): Promise<StepOutput>

  /** Milliseconds of the last `execute` spent inside native code, for the step-time split; 0 where there is none. */
  readonly lastNativeMs: number

  dispose(): Promise<void>
}
