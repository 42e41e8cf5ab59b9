import './disable-telemetry.ts'
import type { InferenceSession, Tensor } from 'onnxruntime-node'
import type { CompiledAdapter } from '../../adapter/primitive.ts'
import type { AdapterSlot } from '../../core/ids.ts'
import { at, invariant } from '../../core/invariant.ts'
import { givenRuns, type StepOutput, type StepPlan } from '../../core/step-plan.ts'
import { LorikeetError } from '../../errors.ts'
import type { DecoderSpec } from '../../model/decoder-spec.ts'
import type { ModelSource } from '../../model/model-source.ts'
import { fillRope } from '../../model/rope.ts'
import type { Backend, BackendCapacity } from '../backend.ts'
import { feedAttention, hasChunks } from './attention-inputs.ts'
import { OUTPUTS } from './decoder-graph.ts'
import { layoutOf } from './decoder-layout.ts'
import { ExtraInputs } from './extras/extra-inputs.ts'
import { StepOps } from './extras/step-ops.ts'
import { Feeds } from './feeds.ts'
import { distinctRopes } from './graph-context.ts'
import { type GraphVariant, type LowRankSource, sortOps } from './graph-variant.ts'
import { HeadEdits } from './head-edits.ts'
import { HeadProduct } from './head-product.ts'
import { KvPool } from './kv-pool.ts'
import { type ResidentAdapter, ResidentAdapters } from './resident-adapters.ts'
import { Sessions } from './sessions.ts'
import { TileInputs } from './tile-inputs.ts'
import { planTiles, type TilePlan } from './tile-plan.ts'
import { TokenEmbedding } from './token-embedding.ts'
import { VectorTables } from './vector-tables.ts'
import { openWeightStore } from './weight-store.ts'

export interface OnnxBackendOptions {
  readonly model: ModelSource
  /** Tokens a KV block. */
  readonly blockSize: number
  readonly kvCache: { readonly numBlocks: number } | { readonly numBytes: number }
  /** Bytes adapters may take together. */
  readonly adapterBytes: number
  /** Threads onnxruntime computes with; 0 = one a physical core. */
  readonly numThreads: number
  /** Where packed weights of large models are kept; null = the user's cache folder. */
  readonly cacheDir?: string | null
  /** Called with float32 bytes prepared so far. */
  readonly onProgress?: (loadedBytes: number) => void
}

const BASE: GraphVariant = { hasChunks: false, lowRank: 'none', hasVectors: false, hasSplitInputs: false, extras: [] }

/** Packs or finds the weights and opens the graphs that every server needs. Throws MODEL_INVALID, CONFIG_INVALID, BACKEND_FAILED. */
export async function createOnnxBackend(options: OnnxBackendOptions): Promise<OnnxBackend> {
  const { model, blockSize, kvCache, numThreads } = options
  const layout = layoutOf(model.spec)
  const bytesPerBlock = KvPool.bytesPerBlock(model.spec, blockSize)
  const numBlocks = 'numBlocks' in kvCache ? kvCache.numBlocks : Math.floor(kvCache.numBytes / bytesPerBlock)
  if (numBlocks < 1) {
    const reason = `one block takes ${bytesPerBlock} bytes`
    throw new LorikeetError('CONFIG_INVALID', { option: '--kv-cache-bytes', reason })
  }
  const { cacheDir = null, onProgress = () => {} } = options
  const store = await openWeightStore({ model, layout, cacheDir, onProgress })
  const sessions = new Sessions({ spec: model.spec, layout, model, store, blockSize }, numThreads)
  await sessions.open({ ...BASE, lowRank: 'aligned' })
  await openVariants(sessions, BASE)
  const headProduct = await HeadProduct.create(numThreads)
  return new OnnxBackend(options, { numBlocks, bytesPerBlock, sessions, headProduct, release: () => store.release() })
}

/**
 * Every graph that steps with these features may need. Opening one takes about a second a GiB of weights, since onnxruntime
 * reads them all: too long for the middle of a step.
 */
async function openVariants(
  sessions: Sessions,
  { hasVectors, hasSplitInputs, extras }: Omit<GraphVariant, 'hasChunks' | 'lowRank'>,
  sources: readonly LowRankSource[] = ['none', 'direct', 'gathered'],
): Promise<void> {
  for (const hasChunks of [false, true]) {
    for (const lowRank of sources) await sessions.open({ hasChunks, lowRank, hasVectors, hasSplitInputs, extras })
  }
}

interface OpenedModel {
  readonly numBlocks: number
  readonly bytesPerBlock: number
  readonly sessions: Sessions
  readonly headProduct: HeadProduct
  readonly release: () => void
}

/** The decoder as ONNX graphs on onnxruntime's CPU provider. */
export class OnnxBackend implements Backend {
  readonly name = 'onnx'
  readonly vocabSize: number
  readonly capacity: BackendCapacity
  lastNativeMs = 0
  readonly #spec: DecoderSpec
  readonly #sessions: Sessions
  readonly #headProduct: HeadProduct
  readonly #release: () => void
  readonly #pool: KvPool
  readonly #adapters: ResidentAdapters
  readonly #embedding: TokenEmbedding
  readonly #tiles: TileInputs
  readonly #tables: VectorTables
  readonly #extras: ExtraInputs
  readonly #stepOps = new StepOps()
  readonly #head: HeadEdits
  readonly #feeds = new Feeds()
  #isDisposed = false

  constructor({ model, blockSize, adapterBytes }: OnnxBackendOptions, opened: OpenedModel) {
    const { spec } = model
    const layout = layoutOf(spec)
    this.vocabSize = spec.vocabSize
    this.capacity = { numBlocks: opened.numBlocks, blockSize, bytesPerBlock: opened.bytesPerBlock, adapterBytes }
    this.#spec = spec
    this.#sessions = opened.sessions
    this.#headProduct = opened.headProduct
    this.#release = opened.release
    this.#pool = new KvPool(spec, opened.numBlocks, blockSize)
    this.#adapters = new ResidentAdapters(model, layout, adapterBytes)
    this.#embedding = new TokenEmbedding(model, this.#adapters)
    this.#tiles = new TileInputs(layout, this.#adapters.arena)
    this.#tables = new VectorTables(model, layout, this.#adapters)
    this.#extras = new ExtraInputs(layout)
    this.#head = new HeadEdits(model, this.#adapters, opened.headProduct)
  }

  adapterBytes(adapter: CompiledAdapter): number {
    return this.#adapters.bytesOf(adapter)
  }

  /** Graphs with nodes for vectors and ops are opened with the first adapter that has some: few servers need them. */
  async prepare(adapter: CompiledAdapter): Promise<void> {
    const { ops, hasVectors, hasSplitInputs, hasLowRank } = this.#adapters.featuresOf(adapter)
    const own = { hasVectors, hasSplitInputs, extras: sortOps(ops) }
    if (ops.length > 0) await openVariants(this.#sessions, own, hasLowRank ? ['direct', 'gathered'] : ['none'])
    else if (hasVectors) await openVariants(this.#sessions, own)
  }

  loadAdapter(adapter: CompiledAdapter): AdapterSlot | null {
    this.#checkAlive()
    return this.#adapters.tryLoad(adapter)
  }

  continueLoad(slot: AdapterSlot, maxBytes: number): boolean {
    return this.#adapters.continueLoad(slot, maxBytes)
  }

  unloadAdapter(slot: AdapterSlot): void {
    this.#extras.forget(this.#adapters.extrasOf(slot))
    this.#stepOps.forget()
    this.#adapters.unload(slot)
  }

  async execute(plan: StepPlan): Promise<StepOutput> {
    this.#checkAlive()
    this.#pool.clearStartedBlocks(plan)
    this.#writePrefixes(plan)
    const tiles = planTiles(plan, this.#adapters)
    const rows = this.#rowsOf(plan)
    const variant = this.#variantOf(plan, tiles, rows)
    const { session, inputNames } = await this.#sessions.open(variant)
    this.#feed(plan, variant, tiles, rows)
    const editsHead = this.#head.areNeeded(plan)
    const isGreedy = !plan.needsLogits && !editsHead
    const fetches: string[] = [OUTPUTS.kv]
    if (isGreedy) fetches.push(OUTPUTS.tokens)
    else fetches.push(editsHead ? OUTPUTS.scores : this.#logitsName)
    if (editsHead) fetches.push(OUTPUTS.headInput)
    const results = await this.#run(session, inputNames, fetches)
    this.#pool.write(plan, floatsOf(results, OUTPUTS.kv))
    if (isGreedy) {
      const tokens = results[OUTPUTS.tokens]?.data as BigInt64Array
      return { kind: 'tokens', tokenIds: Int32Array.from(tokens, Number) }
    }
    const logits = editsHead ? await this.#editedLogits(plan, results) : floatsOf(results, this.#logitsName)
    return plan.needsLogits ? { kind: 'logits', logits } : { kind: 'tokens', tokenIds: this.#argmaxRows(logits) }
  }

  checkIntegrity(): void {
    this.#adapters.checkIntegrity()
  }

  async dispose(): Promise<void> {
    if (this.#isDisposed) return
    this.#isDisposed = true
    await this.#sessions.release()
    await this.#headProduct.release()
    this.#release()
  }

  /** Without a soft cap the scores are the logits, and a graph has one output of them. */
  get #logitsName(): string {
    return this.#spec.finalSoftcap === null ? OUTPUTS.scores : OUTPUTS.logits
  }

  /** Token rows of each adapter of the step. */
  #rowsOf(plan: StepPlan): ReadonlyMap<ResidentAdapter, readonly number[]> {
    const rowsOf = new Map<ResidentAdapter, number[]>()
    for (let token = 0; token < plan.numTokens; token++) {
      const resident = this.#adapters.find(plan.adapterSlotOfToken[token] as number)
      if (resident === null) continue
      const rows = rowsOf.get(resident)
      if (rows === undefined) rowsOf.set(resident, [token])
      else rows.push(token)
    }
    return rowsOf
  }

  #variantOf(plan: StepPlan, tiles: TilePlan | null, rows: ReadonlyMap<ResidentAdapter, unknown>): GraphVariant {
    let { hasVectors, hasSplitInputs } = BASE
    for (const resident of rows.keys()) {
      hasVectors ||= resident.hasVectors
      hasSplitInputs ||= resident.hasSplitInputs
    }
    const extras = this.#stepOps.of([...rows.keys()])
    // The row maps that an aligned graph saves are little beside the nodes of vectors, and not worth two graphs more.
    const isAligned = tiles?.source === 'aligned'
    const lowRank: LowRankSource =
      isAligned && (hasVectors || hasSplitInputs || extras.length > 0) ? 'direct' : (tiles?.source ?? 'none')
    const exact: GraphVariant = {
      hasChunks: hasChunks(plan),
      lowRank,
      hasVectors,
      hasSplitInputs,
      extras,
    }
    if (extras.length === 0) return exact
    // There are as many sets of ops as sets of adapters: a mixed step takes a graph for all that are loaded, not one of its own.
    return this.#sessions.cover(exact) ?? { ...exact, extras: sortOps(this.#adapters.loadedOps()) }
  }

  #writePrefixes(plan: StepPlan): void {
    for (const run of givenRuns(plan, this.capacity.blockSize)) {
      const prefix = this.#adapters.get(run.adapterSlot).adapter.virtualTokens
      invariant(prefix?.kind === 'prefix', `adapter slot ${run.adapterSlot} has a prefix`)
      this.#pool.writePrefix(prefix, run)
    }
  }

  #feed(
    plan: StepPlan,
    variant: GraphVariant,
    tiles: TilePlan | null,
    rows: ReadonlyMap<ResidentAdapter, readonly number[]>,
  ): void {
    const feeds = this.#feeds
    const { numTokens } = plan
    feeds.clear()
    this.#embedding.fill(plan, feeds.float('hidden', [numTokens, this.#spec.hiddenSize]))
    feeds.int('logitRows', [plan.numLogitRows]).set(plan.logitRows.subarray(0, plan.numLogitRows))
    distinctRopes(this.#spec).forEach((rope, index) => {
      const dims = [numTokens, rope.rotaryDim / 2]
      const cos = feeds.float(`rope.${index}.cos`, dims)
      fillRope(rope, plan.positions, numTokens, cos, feeds.float(`rope.${index}.sin`, dims))
    })
    this.#pool.feed(feeds)
    feedAttention(feeds, this.#spec, this.#pool, plan, this.#gatedKeys(plan, variant))
    if (tiles !== null) this.#tiles.feed(feeds, tiles, numTokens)
    if (variant.hasVectors) this.#tables.feed(feeds, plan)
    if (variant.extras.length > 0) this.#extras.feed(feeds, plan, variant.extras, rows)
  }

  /** Null where no adapter of the graph gates a prefix. */
  #gatedKeys(plan: StepPlan, variant: GraphVariant): ((seq: number) => number) | null {
    if (!variant.extras.some(({ stage }) => stage === 'gates')) return null
    return (seq) => {
      const lastRow = (plan.queryStart[seq + 1] as number) - 1
      const prefix = this.#adapters.find(plan.adapterSlotOfToken[lastRow] as number)?.adapter.virtualTokens
      return prefix?.kind === 'prefix' && prefix.gates !== null ? prefix.numTokens : 0
    }
  }

  async #run(
    session: InferenceSession,
    inputNames: readonly string[],
    fetches: readonly string[],
  ): Promise<Readonly<Record<string, Tensor>>> {
    const started = performance.now()
    try {
      return await session.run(this.#feeds.select(inputNames), fetches)
    } catch (error) {
      throw new LorikeetError('BACKEND_FAILED', { backend: 'onnx', detail: String(error) }, { cause: error })
    } finally {
      this.lastNativeMs = performance.now() - started
    }
  }

  async #editedLogits(plan: StepPlan, results: Readonly<Record<string, Tensor>>): Promise<Float32Array> {
    const scores = floatsOf(results, OUTPUTS.scores)
    await this.#head.apply(plan, { scores, inputs: floatsOf(results, OUTPUTS.headInput) })
    const cap = this.#spec.finalSoftcap
    if (cap !== null) for (let i = 0; i < scores.length; i++) scores[i] = cap * Math.tanh((scores[i] as number) / cap)
    return scores
  }

  #argmaxRows(logits: Float32Array): Int32Array {
    const { vocabSize } = this
    const tokenIds = new Int32Array(logits.length / vocabSize)
    for (let row = 0; row < tokenIds.length; row++) {
      const start = row * vocabSize
      let best = 0
      for (let i = 1; i < vocabSize; i++) if (at(logits, start + i) > at(logits, start + best)) best = i
      tokenIds[row] = best
    }
    return tokenIds
  }

  #checkAlive(): void {
    invariant(!this.#isDisposed, 'the backend is not disposed')
  }
}

function floatsOf(results: Readonly<Record<string, Tensor>>, name: string): Float32Array {
  const data = results[name]?.data
  invariant(data instanceof Float32Array, `output ${name} is float32`)
  return data
}
