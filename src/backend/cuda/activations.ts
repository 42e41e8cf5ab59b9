// Intermediate results of a step. Grown to the largest step seen; every kernel writes what the next one reads.

import { at } from '../../core/invariant.ts'
import type { DecoderSpec } from '../../model/decoder-spec.ts'
import type { DeviceBuffer } from './buffer.ts'
import type { Device } from './device.ts'
import { type CudaDtype, DTYPES } from './dtype.ts'
import { paddedWidth } from './sites.ts'

const FLOAT_BYTES = 4

const NAMES = [
  'hidden', // float32 [tokens, hidden]
  'normed', // [tokens, hidden]
  'qkv',
  'attention', // [tokens, numHeads headDim]
  'delta', // [tokens, hidden]
  'mlpIn', // gate | up
  'mlpActive',
  'scaled', // a linear's input times an adapter's input scale
  'headIn', // [logit rows, hidden]
  'logits', // float32 [logit rows, vocab]
  'tokenIds', // int32 [logit rows]
  'shrink', // float32 [splits, tokens, ranks]
  'attentionSums', // float32
  'attentionStats',
] as const

export type ActivationName = (typeof NAMES)[number]

export class Activations implements Disposable {
  readonly #device: Device
  readonly #buffers = new Map<ActivationName, DeviceBuffer>()
  /** Counts reallocations: recorded graphs hold addresses. */
  generation = 0

  constructor(device: Device) {
    this.#device = device
  }

  /** Room for a step of this size. */
  reserveStep(spec: DecoderSpec, dtype: CudaDtype, numTokens: number, numLogitRows: number): void {
    for (const [name, numBytes] of stepBytes(spec, dtype, numTokens, numLogitRows)) this.reserve(name, numBytes)
  }

  reserve(name: ActivationName, numBytes: number): void {
    const present = this.#buffers.get(name)
    if (present !== undefined && present.numBytes >= numBytes) return
    present?.[Symbol.dispose]()
    this.#buffers.delete(name)
    this.#buffers.set(name, this.#device.allocate(numBytes, 'intermediate results'))
    this.generation++
  }

  address(name: ActivationName): number {
    const buffer = this.#buffers.get(name)
    return buffer === undefined ? 0 : buffer.address
  }

  [Symbol.dispose](): void {
    for (const buffer of this.#buffers.values()) buffer[Symbol.dispose]()
    this.#buffers.clear()
  }
}

/** Bytes of each buffer whose size follows from the step's. */
export function stepBytes(
  spec: DecoderSpec,
  dtype: CudaDtype,
  numTokens: number,
  numLogitRows: number,
): readonly (readonly [ActivationName, number])[] {
  const { numBytes } = DTYPES[dtype]
  const { hiddenSize, numHeads, numKvHeads, headDim, vocabSize } = spec
  const inner = Math.max(...spec.layers.map(({ mlp }) => paddedWidth(mlp.intermediateSize)))
  const isGated = at(spec.layers, 0).mlp.kind === 'gated'
  const qWidth = numHeads * headDim
  const row = numTokens * numBytes
  return [
    ['hidden', numTokens * hiddenSize * FLOAT_BYTES],
    ['normed', row * hiddenSize],
    ['qkv', row * (qWidth + 2 * numKvHeads * headDim)],
    ['attention', row * qWidth],
    ['delta', row * hiddenSize],
    ['mlpIn', row * inner * (isGated ? 2 : 1)],
    ['mlpActive', row * inner],
    ['scaled', Math.max(numTokens, numLogitRows) * numBytes * Math.max(hiddenSize, qWidth, inner)],
    ['headIn', numLogitRows * hiddenSize * numBytes],
    ['logits', numLogitRows * vocabSize * FLOAT_BYTES],
    ['tokenIds', numLogitRows * FLOAT_BYTES],
  ]
}
