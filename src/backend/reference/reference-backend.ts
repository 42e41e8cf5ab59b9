import type { CompiledAdapter } from '../../adapter/primitive.ts'
import { siteShapes } from '../../adapter/site-shapes.ts'
import type { AdapterSlot } from '../../core/ids.ts'
import { invariant } from '../../core/invariant.ts'
import type { StepOutput, StepPlan } from '../../core/step-plan.ts'
import { LorikeetError } from '../../errors.ts'
import type { DecoderSpec } from '../../model/decoder-spec.ts'
import type { ModelSource } from '../../model/model-source.ts'
import type { Backend, BackendCapacity } from '../backend.ts'
import { runForward } from './forward.ts'
import { KvPool } from './kv-pool.ts'
import { argmax } from './matrix.ts'
import { ResidentAdapters } from './resident-adapters.ts'
import { ModelWeights } from './site-weights.ts'

export interface ReferenceBackendOptions {
  readonly model: ModelSource
  /** Tokens a KV block. */
  readonly blockSize: number
  readonly kvCache: { readonly numBlocks: number } | { readonly numBytes: number }
  /** Bytes adapters may take together. */
  readonly adapterBytes: number
  /** Called with float32 bytes read so far. */
  readonly onProgress?: (loadedBytes: number) => void
}

/** Reads all weights. Throws MODEL_INVALID or SAFETENSORS_INVALID for bad ones, CONFIG_INVALID where no KV block fits. */
export function createReferenceBackend(options: ReferenceBackendOptions): ReferenceBackend {
  return new ReferenceBackend(options)
}

/**
 * The definition of correct logits: plain loops over float32 arrays with float64 sums. Made to be read and compared
 * with, not to be fast.
 */
export class ReferenceBackend implements Backend {
  readonly name = 'reference'
  readonly vocabSize: number
  readonly capacity: BackendCapacity
  /** There is no native code here. */
  readonly lastNativeMs = 0
  readonly #spec: DecoderSpec
  readonly #weights: ModelWeights
  readonly #adapters: ResidentAdapters
  readonly #pool: KvPool
  #isDisposed = false

  constructor({ model, blockSize, kvCache, adapterBytes, onProgress }: ReferenceBackendOptions) {
    const { spec } = model
    const shape = { numLayers: spec.numLayers, blockSize, width: spec.numKvHeads * spec.headDim }
    const bytesPerBlock = KvPool.bytesPerBlock(shape)
    const numBlocks = 'numBlocks' in kvCache ? kvCache.numBlocks : Math.floor(kvCache.numBytes / bytesPerBlock)
    if (numBlocks < 1) {
      throw new LorikeetError('CONFIG_INVALID', {
        option: '--kv-cache-bytes',
        reason: `one block takes ${bytesPerBlock} bytes`,
      })
    }
    this.#spec = spec
    this.vocabSize = spec.vocabSize
    this.capacity = { numBlocks, blockSize, bytesPerBlock, adapterBytes }
    this.#weights = ModelWeights.load(model, onProgress)
    this.#pool = new KvPool({ ...shape, numBlocks })
    this.#adapters = new ResidentAdapters(siteShapes(model), spec, adapterBytes)
  }

  adapterBytes(adapter: CompiledAdapter): number {
    return this.#adapters.bytesOf(adapter)
  }

  loadAdapter(adapter: CompiledAdapter): AdapterSlot | null {
    this.#checkAlive()
    return this.#adapters.tryLoad(adapter)
  }

  async prepare(): Promise<void> {}

  /** `loadAdapter` keeps the arrays as they are: there is nothing to copy. */
  continueLoad(): boolean {
    return true
  }

  unloadAdapter(slot: AdapterSlot): void {
    this.#adapters.unload(slot)
  }

  async execute(plan: StepPlan): Promise<StepOutput> {
    this.#checkAlive()
    const { vocabSize } = this
    const context = { spec: this.#spec, weights: this.#weights, adapters: this.#adapters, pool: this.#pool, plan }
    const logits = runForward(context)
    if (plan.needsLogits) return { kind: 'logits', logits }
    const tokenIds = Int32Array.from({ length: plan.numLogitRows }, (_, row) =>
      argmax(logits.subarray(row * vocabSize, (row + 1) * vocabSize)),
    )
    return { kind: 'tokens', tokenIds }
  }

  checkIntegrity(): void {
    this.#adapters.checkIntegrity()
  }

  async dispose(): Promise<void> {
    this.#isDisposed = true
  }

  #checkAlive(): void {
    invariant(!this.#isDisposed, 'the backend is not disposed')
  }
}
