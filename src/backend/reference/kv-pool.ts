/** Keys and values of every KV block, float32. A KV slot is `blockId * blockSize + offset`. */
export class KvPool {
  readonly numBlocks: number
  readonly blockSize: number
  /** Width of one token's keys: KV heads times head size. */
  readonly width: number
  readonly #keys: readonly Float32Array[] // [numLayers][numKvSlots, width]
  readonly #values: readonly Float32Array[]

  constructor(shape: { numLayers: number; numBlocks: number; blockSize: number; width: number }) {
    this.numBlocks = shape.numBlocks
    this.blockSize = shape.blockSize
    this.width = shape.width
    const layerElements = shape.numBlocks * shape.blockSize * shape.width
    this.#keys = Array.from({ length: shape.numLayers }, () => new Float32Array(layerElements))
    this.#values = Array.from({ length: shape.numLayers }, () => new Float32Array(layerElements))
  }

  static bytesPerBlock(shape: { numLayers: number; blockSize: number; width: number }): number {
    return 2 * shape.numLayers * shape.blockSize * shape.width * Float32Array.BYTES_PER_ELEMENT
  }

  /** Keys of one token in one layer, a view. */
  keys(layer: number, kvSlot: number): Float32Array {
    return this.#row(this.#keys, layer, kvSlot)
  }

  values(layer: number, kvSlot: number): Float32Array {
    return this.#row(this.#values, layer, kvSlot)
  }

  #row(pool: readonly Float32Array[], layer: number, kvSlot: number): Float32Array {
    return (pool[layer] as Float32Array).subarray(kvSlot * this.width, (kvSlot + 1) * this.width)
  }
}
