import type { CompiledAdapter } from '../../adapter/primitive.ts'
import type { AdapterSlot } from '../../core/ids.ts'
import { invariant } from '../../core/invariant.ts'
import type { StepOutput, StepPlan } from '../../core/step-plan.ts'
import { LorikeetError } from '../../errors.ts'
import type { DecoderSpec } from '../../model/decoder-spec.ts'
import type { ModelSource } from '../../model/model-source.ts'
import type { Backend, BackendCapacity } from '../backend.ts'
import { Activations } from './activations.ts'
import type { DeviceBuffer, PinnedBuffer } from './buffer.ts'
import { Device } from './device.ts'
import { type CudaDtype, DTYPES } from './dtype.ts'
import { Forward } from './forward.ts'
import { Linears } from './linears.ts'
import { Matmul } from './matmul.ts'
import { KernelModule } from './module.ts'
import { ResidentAdapters } from './resident-adapters.ts'
import { StepGraphs } from './step-graphs.ts'
import { type PackedStep, StepInputs } from './step-inputs.ts'
import { Stream } from './stream.ts'
import { Uploader } from './uploader.ts'
import { WeightLoader } from './weights.ts'

export interface CudaBackendOptions {
  readonly model: ModelSource
  /** Tokens a KV block. */
  readonly blockSize: number
  /** `null`: what is left of the device's memory. */
  readonly kvCache: { readonly numBlocks: number } | { readonly numBytes: number } | null
  /** Bytes adapters may take together. */
  readonly adapterBytes: number
  /** `auto`: bfloat16, or float16 for a checkpoint of that. */
  readonly dtype: CudaDtype | 'auto'
  /** Tokens the longest sequence may have; default: the model's own limit. */
  readonly maxModelLen?: number
  /** Largest step to keep memory for; a larger one takes more when it comes. */
  readonly maxNumBatchedTokens?: number
  readonly maxNumSeqs?: number
  /** False: every step is launched kernel by kernel. Default true. */
  readonly usesGraphs?: boolean
  /** Called with float32 bytes read so far. */
  readonly onProgress?: (loadedBytes: number) => void
}

/** Rows of a step are padded to one of few counts, so that few algorithms are looked up and few graphs recorded. */
const FINE_ROWS = 256
const FINE_STEP = 8
const COARSE_STEP = 64

/** Left of the device's memory for fragmentation, graphs and what libraries allocate when first used. */
const SPARE_BYTES = 768 << 20

const DEFAULT_MAX_TOKENS = 512
const DEFAULT_MAX_SEQS = 256

/** What the attention and norm kernels are made for. */
const MAX_HEAD_DIM = 256
const MAX_HIDDEN_SIZE = 16_384
const HEAD_DIM_STEP = 8

/**
 * Opens the GPU, loads kernels and weights. Throws BACKEND_UNAVAILABLE, MODEL_UNSUPPORTED, CONFIG_INVALID where memory is short,
 * or what reading the weights throws.
 */
export async function createCudaBackend(options: CudaBackendOptions): Promise<CudaBackend> {
  checkModel(options.model.spec)
  const opened: Disposable[] = []
  try {
    return new CudaBackend(options, opened)
  } catch (error) {
    for (const each of opened.reverse()) each[Symbol.dispose]()
    throw error
  }
}

export class CudaBackend implements Backend {
  readonly name = 'cuda'
  readonly dtype: CudaDtype
  readonly vocabSize: number
  readonly capacity: BackendCapacity
  lastNativeMs = 0
  /** Milliseconds of the last `execute` before it waited for the device. */
  lastLaunchMs = 0
  /** Freed in reverse order. */
  readonly #owned: Disposable[]
  readonly #spec: DecoderSpec
  readonly #device: Device
  readonly #stream: Stream
  readonly #activations: Activations
  readonly #adapters: ResidentAdapters
  readonly #inputs: StepInputs
  readonly #forward: Forward
  readonly #graphs: StepGraphs | null
  #output: PinnedBuffer
  #isDisposed = false

  constructor(options: CudaBackendOptions, owned: Disposable[]) {
    const { model, blockSize, adapterBytes } = options
    const { spec } = model
    const own = <T extends Disposable>(resource: T): T => {
      owned.push(resource)
      return resource
    }
    this.#owned = owned
    this.#spec = spec
    this.vocabSize = spec.vocabSize
    const dtype = options.dtype === 'auto' ? (model.dtype === 'F16' ? 'float16' : 'bfloat16') : options.dtype
    this.dtype = dtype
    const device = own(Device.open())
    this.#device = device
    const kernels = own(KernelModule.load(device))
    const matmul = own(new Matmul(device, dtype))
    this.#stream = own(new Stream(device))
    const uploader = own(new Uploader(device, kernels, dtype))
    const { onProgress = () => {} } = options
    const loader = own(
      new WeightLoader({ device, uploader, model, dtype, numPositions: options.maxModelLen ?? spec.maxPositions, onProgress }),
    )
    const weights = loader.load()
    this.#adapters = own(new ResidentAdapters({ device, uploader, model, dtype, budgetBytes: adapterBytes }))
    this.#activations = own(new Activations(device))
    this.#inputs = own(new StepInputs(device, blockSize))
    const kv = own(this.#allocateKv(options))
    const bytesPerBlock = kvBytesPerBlock(spec, dtype, blockSize)
    const numBlocks = kv.numBytes / bytesPerBlock
    this.capacity = { numBlocks, blockSize, bytesPerBlock, adapterBytes }
    const shared = { device, kernels, activations: this.#activations, spec, dtype, stream: this.#stream }
    const linears = own(new Linears({ ...shared, matmul }))
    const layerElements = kv.numBytes / spec.numLayers / DTYPES[dtype].numBytes
    this.#forward = new Forward({ ...shared, linears, weights, kv: { address: kv.address, layerElements, blockSize } })
    this.#graphs = options.usesGraphs === false ? null : own(new StepGraphs(this.#stream))
    this.#output = device.allocatePinned(spec.vocabSize * Float32Array.BYTES_PER_ELEMENT)
  }

  /** GPU, driver and element type, for logs and benchmarks. */
  get description(): string {
    const { name, capability, driverVersion } = this.#device.facts
    return `${name} (compute capability ${capability}, CUDA ${driverVersion}), ${this.dtype}`
  }

  adapterBytes(adapter: CompiledAdapter): number {
    return this.#adapters.bytesOf(adapter)
  }

  async prepare(): Promise<void> {}

  loadAdapter(adapter: CompiledAdapter): AdapterSlot | null {
    this.#checkAlive()
    return this.#adapters.tryLoad(adapter)
  }

  continueLoad(slot: AdapterSlot, maxBytes: number): boolean {
    return this.#adapters.continueLoad(slot, maxBytes)
  }

  unloadAdapter(slot: AdapterSlot): void {
    this.#adapters.unload(slot)
  }

  async execute(plan: StepPlan): Promise<StepOutput> {
    this.#checkAlive()
    const started = performance.now()
    try {
      return this.#run(plan)
    } finally {
      this.lastNativeMs = performance.now() - started
    }
  }

  checkIntegrity(): void {
    this.#adapters.checkIntegrity()
  }

  async dispose(): Promise<void> {
    if (this.#isDisposed) return
    this.#isDisposed = true
    this.#stream.synchronize()
    this.#output[Symbol.dispose]()
    for (const resource of this.#owned.reverse()) resource[Symbol.dispose]()
  }

  #run(plan: StepPlan): StepOutput {
    const started = performance.now()
    const stream = this.#stream
    const capacity = { numTokens: paddedRows(plan.numTokens), numLogitRows: paddedRows(plan.numLogitRows) }
    this.#activations.reserveStep(this.#spec, this.dtype, capacity.numTokens, capacity.numLogitRows)
    const step = this.#inputs.send(plan, capacity, stream, (slot) => this.#adapters.use(slot, stream))
    this.#forward.writePrefixes(step)
    const isDecode = plan.numSeqs === plan.numTokens && plan.numLogitRows === plan.numTokens
    const record = (): void => this.#forward.run(step, capacity)
    if (this.#graphs === null || !isDecode || !this.#graphs.tryRun(step, capacity, this.#generation, record)) record()
    this.lastLaunchMs = performance.now() - started
    return plan.needsLogits ? this.#readLogits(plan.numLogitRows) : this.#readTokens(step, plan.numLogitRows)
  }

  /** Changes when an address that graphs hold does. */
  get #generation(): number {
    return this.#activations.generation + this.#inputs.generation
  }

  #readLogits(numRows: number): StepOutput {
    const count = numRows * this.vocabSize
    const bytes = this.#download('logits', count)
    return { kind: 'logits', logits: new Float32Array(bytes, 0, count) }
  }

  #readTokens(step: PackedStep, numRows: number): StepOutput {
    this.#forward.argmax(step, numRows)
    const bytes = this.#download('tokenIds', numRows)
    return { kind: 'tokens', tokenIds: new Int32Array(bytes, 0, numRows) }
  }

  /** Waits for the step. `count` elements of four bytes each. */
  #download(name: 'logits' | 'tokenIds', count: number): ArrayBuffer {
    const numBytes = count * Float32Array.BYTES_PER_ELEMENT
    if (this.#output.numBytes < numBytes) {
      this.#stream.synchronize()
      this.#output[Symbol.dispose]()
      this.#output = this.#device.allocatePinned(numBytes)
    }
    if (numBytes > 0) this.#stream.download(this.#output.address, this.#activations.address(name), numBytes)
    this.#stream.synchronize()
    return this.#output.bytes
  }

  #allocateKv(options: CudaBackendOptions): DeviceBuffer {
    const { kvCache, blockSize } = options
    const bytesPerBlock = kvBytesPerBlock(this.#spec, this.dtype, blockSize)
    const maxTokens = paddedRows(options.maxNumBatchedTokens ?? DEFAULT_MAX_TOKENS)
    const maxSeqs = paddedRows(options.maxNumSeqs ?? DEFAULT_MAX_SEQS)
    const asked = kvCache !== null && 'numBlocks' in kvCache ? kvCache.numBlocks : null
    // Intermediate results are allocated first, so that a full step never finds the KV cache in its place.
    if (asked === null) this.#activations.reserveStep(this.#spec, this.dtype, maxTokens, Math.min(maxSeqs, maxTokens))
    const numBytes = kvCache === null ? this.#device.freeBytes() - SPARE_BYTES : 'numBytes' in kvCache ? kvCache.numBytes : 0
    const numBlocks = asked ?? Math.floor(numBytes / bytesPerBlock)
    if (numBlocks < 1) {
      const reason = `one block takes ${bytesPerBlock} bytes and ${Math.max(0, numBytes)} are left for the KV cache`
      throw new LorikeetError('CONFIG_INVALID', { option: '--kv-cache-bytes', reason })
    }
    return this.#device.allocate(numBlocks * bytesPerBlock, 'keys and values')
  }

  #checkAlive(): void {
    invariant(!this.#isDisposed, 'the backend is not disposed')
  }
}

/** Bytes of keys and values of one block over all layers. */
function kvBytesPerBlock(spec: DecoderSpec, dtype: CudaDtype, blockSize: number): number {
  return 2 * spec.numLayers * spec.numKvHeads * spec.headDim * blockSize * DTYPES[dtype].numBytes
}

/** 1, 2 and 4 as they are: cuBLASLt has kernels of their own for them. */
function paddedRows(numRows: number): number {
  if (numRows <= 2 || numRows === 4) return numRows
  const step = numRows <= FINE_ROWS ? FINE_STEP : COARSE_STEP
  return numRows === 3 ? 4 : Math.ceil(numRows / step) * step
}

function checkModel(spec: DecoderSpec): void {
  const unsupported = (field: string, value: string | number, hint: string) =>
    new LorikeetError('MODEL_UNSUPPORTED', { field, value, hint })
  const hint = 'use --backend onnx'
  if (spec.layers.some(({ mlp }) => mlp.kind === 'experts')) {
    throw unsupported('model_type', spec.modelType, `the cuda backend serves dense models; ${hint}`)
  }
  if (spec.headDim > MAX_HEAD_DIM || spec.headDim % HEAD_DIM_STEP !== 0) {
    throw unsupported('head_dim', spec.headDim, `the cuda backend serves multiples of 8 up to 256; ${hint}`)
  }
  if (spec.hiddenSize > MAX_HIDDEN_SIZE || spec.hiddenSize % 8 !== 0) {
    throw unsupported('hidden_size', spec.hiddenSize, `the cuda backend serves multiples of 8 up to 16,384; ${hint}`)
  }
}
