// The KV pool: one array a layer, owned here and fed to every graph without a copy.
//
//   [numBlocks + 1, keys | values, numKvHeads, blockSize, headDim]
//
// A page is one head of one block, so a gather of pages is already ordered for a batched matrix product. The last block is
// always zero: it pads block tables.

import { Tensor } from 'onnxruntime-node'
import type { Prefix } from '../../adapter/primitive.ts'
import { at, invariant } from '../../core/invariant.ts'
import type { GivenRun, StepPlan } from '../../core/step-plan.ts'
import type { DecoderSpec } from '../../model/decoder-spec.ts'
import type { Feeds } from './feeds.ts'

export class KvPool {
  readonly numBlocks: number
  readonly blockSize: number
  readonly #numKvHeads: number
  readonly #headDim: number
  readonly #layers: readonly Float32Array[]
  readonly #tensors: readonly Tensor[]

  constructor(spec: DecoderSpec, numBlocks: number, blockSize: number) {
    this.numBlocks = numBlocks
    this.blockSize = blockSize
    this.#numKvHeads = spec.numKvHeads
    this.#headDim = spec.headDim
    const numPages = (numBlocks + 1) * 2 * spec.numKvHeads
    const dims = [numPages, blockSize, spec.headDim]
    this.#layers = Array.from({ length: spec.numLayers }, () => new Float32Array(numPages * blockSize * spec.headDim))
    this.#tensors = this.#layers.map((layer) => new Tensor('float32', layer, dims))
  }

  static bytesPerBlock(spec: DecoderSpec, blockSize: number): number {
    return 2 * spec.numLayers * spec.numKvHeads * spec.headDim * blockSize * Float32Array.BYTES_PER_ELEMENT
  }

  get zeroBlock(): number {
    return this.numBlocks
  }

  keyPage(block: number, head: number): number {
    return block * 2 * this.#numKvHeads + head
  }

  valuePage(block: number, head: number): number {
    return (block * 2 + 1) * this.#numKvHeads + head
  }

  feed(feeds: Feeds): void {
    this.#tensors.forEach((tensor, layer) => {
      feeds.tensor(`kv.${layer}`, tensor)
    })
  }

  /**
   * Zeroes every block whose first position this step writes. What a block held before belongs to another request; a
   * masked score hides it from sums only while it is finite.
   */
  clearStartedBlocks(plan: StepPlan): void {
    for (let token = 0; token < plan.numTokens; token++) this.#clearIfStarted(plan.slotMapping[token] as number)
  }

  /** Writes an adapter's keys and values where no row of the step computes them. Call before the step's attention. */
  writePrefix({ keys, values }: Prefix, { firstToken, kvSlots }: GivenRun): void {
    const { blockSize } = this
    const headDim = this.#headDim
    const width = this.#numKvHeads * headDim
    kvSlots.forEach((kvPosition, index) => {
      this.#clearIfStarted(kvPosition)
      const offset = kvPosition % blockSize
      const block = (kvPosition - offset) / blockSize
      const row = (firstToken + index) * width
      this.#layers.forEach((layer, i) => {
        for (let head = 0; head < this.#numKvHeads; head++) {
          const start = row + head * headDim
          layer.set(at(keys, i).subarray(start, start + headDim), (this.keyPage(block, head) * blockSize + offset) * headDim)
          layer.set(
            at(values, i).subarray(start, start + headDim),
            (this.valuePage(block, head) * blockSize + offset) * headDim,
          )
        }
      })
    })
  }

  /** Writes a step's own rows, [2 * numLayers, numTokens, numKvHeads, headDim], where its plan says. */
  write(plan: StepPlan, rows: Float32Array): void {
    const { blockSize } = this
    const numKvHeads = this.#numKvHeads
    const headDim = this.#headDim
    const { numTokens } = plan
    invariant(rows.length === 2 * this.#layers.length * numTokens * numKvHeads * headDim, 'keys and values of every token')
    let source = 0
    for (let half = 0; half < 2 * this.#layers.length; half++) {
      const pool = at(this.#layers, half >> 1)
      for (let token = 0; token < numTokens; token++) {
        const kvPosition = plan.slotMapping[token] as number
        const offset = kvPosition % blockSize
        const block = (kvPosition - offset) / blockSize
        const firstPage = (block * 2 + (half & 1)) * numKvHeads
        for (let head = 0; head < numKvHeads; head++) {
          let target = ((firstPage + head) * blockSize + offset) * headDim
          // Rows are a few hundred bytes: a plain loop beats the call of TypedArray.set.
          for (let i = 0; i < headDim; i++) pool[target++] = rows[source++] as number
        }
      }
    }
  }

  #clearIfStarted(kvPosition: number): void {
    if (kvPosition % this.blockSize !== 0) return
    const blockElements = 2 * this.#numKvHeads * this.blockSize * this.#headDim
    const start = (kvPosition / this.blockSize) * blockElements
    for (const layer of this.#layers) layer.fill(0, start, start + blockElements)
  }
}
