// Linear layers of a decode step alone, as one graph: the base products, and what adapters add to them.

import type { CompiledAdapter } from '../../src/adapter/primitive.ts'
import { Activations } from '../../src/backend/cuda/activations.ts'
import { Device } from '../../src/backend/cuda/device.ts'
import { Linears } from '../../src/backend/cuda/linears.ts'
import { Matmul } from '../../src/backend/cuda/matmul.ts'
import { KernelModule } from '../../src/backend/cuda/module.ts'
import { ResidentAdapters } from '../../src/backend/cuda/resident-adapters.ts'
import { type PackedStep, StepInputs } from '../../src/backend/cuda/step-inputs.ts'
import { DeviceEvent, Stream } from '../../src/backend/cuda/stream.ts'
import { Uploader } from '../../src/backend/cuda/uploader.ts'
import { type DeviceWeights, WeightLoader } from '../../src/backend/cuda/weights.ts'
import { createStepPlan, type StepPlan } from '../../src/core/step-plan.ts'
import type { ModelSource } from '../../src/model/model-source.ts'
import { createRandom } from './llama-8b.ts'

const DTYPE = 'bfloat16'
const BLOCK_SIZE = 16
const WARM_UPS = 3
const REPEATS = 15

export interface LinearsTimes {
  /** Median device milliseconds of all layers' linears. */
  readonly baseMs: number
  readonly adaptersMs: number
  /** What the adapters' kernels take without the base products beside them. */
  readonly adaptersAloneMs: number
}

export class LinearsBench {
  readonly #device = Device.open()
  readonly #kernels = KernelModule.load(this.#device)
  readonly #matmul = new Matmul(this.#device, DTYPE)
  readonly #stream = new Stream(this.#device)
  readonly #uploader = new Uploader(this.#device, this.#kernels, DTYPE)
  readonly #activations = new Activations(this.#device)
  readonly #inputs = new StepInputs(this.#device, BLOCK_SIZE)
  readonly #model: ModelSource
  readonly #loader: WeightLoader
  readonly #weights: DeviceWeights
  readonly #adapters: ResidentAdapters
  readonly #slots: readonly number[]

  constructor(model: ModelSource, adapters: readonly CompiledAdapter[], maxRows: number) {
    const [device, uploader] = [this.#device, this.#uploader]
    this.#model = model
    const shared = { device, uploader, model, dtype: DTYPE } as const
    this.#loader = new WeightLoader({ ...shared, numPositions: BLOCK_SIZE, onProgress: () => {} })
    this.#weights = this.#loader.load()
    const sizer = new ResidentAdapters({ ...shared, budgetBytes: 1 })
    const budgetBytes = adapters.reduce((sum, adapter) => sum + sizer.bytesOf(adapter), 0)
    sizer[Symbol.dispose]()
    this.#adapters = new ResidentAdapters({ ...shared, budgetBytes })
    this.#slots = adapters.map((adapter) => {
      const slot = this.#adapters.tryLoad(adapter)
      if (slot === null) throw new Error('the budget holds every adapter')
      this.#adapters.continueLoad(slot, Number.POSITIVE_INFINITY)
      return slot
    })
    this.#activations.reserveStep(model.spec, DTYPE, maxRows, 1)
    this.#fillInputs(maxRows)
    uploader.stream.synchronize()
  }

  get deviceName(): string {
    return this.#device.facts.name
  }

  /** `numRows` decode rows, evenly over the first `numAdapters` adapters. */
  measure(numRows: number, numAdapters: number): LinearsTimes {
    const withAdapters = this.#plan(numRows, numAdapters)
    const none = { run: () => {} } as unknown as Matmul
    return {
      baseMs: this.#time(this.#plan(numRows, 0), numRows, this.#matmul),
      adaptersMs: this.#time(withAdapters, numRows, this.#matmul),
      adaptersAloneMs: this.#time(withAdapters, numRows, none),
    }
  }

  dispose(): void {
    const owned = [this.#inputs, this.#activations, this.#adapters, this.#loader, this.#uploader, this.#stream, this.#matmul]
    for (const each of [...owned, this.#kernels, this.#device]) each[Symbol.dispose]()
  }

  #time(plan: StepPlan, numRows: number, matmul: Matmul): number {
    const capacity = { numTokens: numRows, numLogitRows: 1 }
    const stream = this.#stream
    const step = this.#inputs.send(plan, capacity, stream, (slot) => this.#adapters.use(slot, stream))
    const context = { device: this.#device, kernels: this.#kernels, activations: this.#activations, matmul, stream }
    const linears = new Linears({ ...context, spec: this.#model.spec, dtype: DTYPE })
    const work = (): void => this.#runLayers(linears, step, numRows)
    work()
    stream.synchronize()
    const graph = stream.capture(work)
    const [start, end] = [0, 1].map(() => new DeviceEvent(this.#device, { isTimed: true })) as [DeviceEvent, DeviceEvent]
    const times: number[] = []
    for (let i = 0; i < WARM_UPS + REPEATS; i++) {
      start.record(stream)
      graph.launch(stream)
      end.record(stream)
      stream.synchronize()
      if (i >= WARM_UPS) times.push(end.since(start))
    }
    for (const each of [graph, start, end, linears]) each[Symbol.dispose]()
    return times.toSorted((a, b) => a - b)[Math.floor(times.length / 2)] ?? Number.NaN
  }

  #runLayers(linears: Linears, step: PackedStep, numRows: number): void {
    const address = this.#activations.address.bind(this.#activations)
    for (const layer of this.#weights.layers) {
      const input = (x: number, y: number) => ({ x, y, numRows, isHead: false })
      linears.run(layer.qkv, step, input(address('normed'), address('qkv')))
      linears.run(layer.o, step, input(address('attention'), address('delta')))
      linears.run(layer.mlpIn, step, input(address('normed'), address('mlpIn')))
      linears.run(layer.down, step, input(address('mlpActive'), address('delta')))
    }
  }

  #plan(numRows: number, numAdapters: number): StepPlan {
    const plan = createStepPlan({ maxNumBatchedTokens: numRows, maxNumSeqs: numRows, maxBlocksPerSeq: 1 })
    Object.assign(plan, { numTokens: numRows, numSeqs: numRows, numLogitRows: 0 })
    for (let row = 0; row < numRows; row++) {
      plan.queryStart[row + 1] = row + 1
      plan.contextLens[row] = 1
      plan.promptEnds[row] = 1
      const adapter = Math.floor((row * numAdapters) / numRows)
      plan.adapterSlotOfToken[row] = numAdapters === 0 ? -1 : (this.#slots[adapter] as number)
    }
    return plan
  }

  /** Zeros would be faster than real data. */
  #fillInputs(numRows: number): void {
    const { hiddenSize, layers } = this.#model.spec
    const inner = layers[0]?.mlp.intermediateSize ?? 0
    const random = createRandom(7)
    for (const [name, width] of [
      ['normed', hiddenSize],
      ['attention', hiddenSize],
      ['mlpActive', inner],
    ] as const) {
      const source = Float32Array.from({ length: numRows * width }, () => random() * 2 - 1)
      const target = this.#activations.address(name)
      const copy = { source, numRows, numColumns: width, target, ldOut: width, isTransposed: false, scale: 1, rowScale: null }
      this.#uploader.finish(this.#uploader.copyPacked(copy))
    }
  }
}
