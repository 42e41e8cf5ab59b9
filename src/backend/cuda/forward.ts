// The forward pass of model/decoder-spec.ts as a sequence of launches. Nothing here waits for the device or reads from it, so
// the same code runs a step and records a graph.

import { at, invariant } from '../../core/invariant.ts'
import type { Activation, DecoderSpec, LayerSpec } from '../../model/decoder-spec.ts'
import type { ActivationName, Activations } from './activations.ts'
import type { Device } from './device.ts'
import { type CudaDtype, DTYPES } from './dtype.ts'
import { countAddress, type LinearInput, type Linears } from './linears.ts'
import type { KernelModule, ParamWriter } from './module.ts'
import { finalNormIndex, normIndex } from './sites.ts'
import type { PackedStep, StepCapacity } from './step-inputs.ts'
import type { Stream } from './stream.ts'
import type { DeviceWeights, LayerWeights, LinearGroup, NormWeights } from './weights.ts'

const FLOAT_BYTES = 4
const EMBED_THREADS = 256
const NORM_THREADS = 512
const ROPE_THREADS = 256
const ROPE_HEADS = 8
const ACTIVATION_THREADS = 128
const ACTIVATION_COLUMNS = 8 * ACTIVATION_THREADS
const ATTENTION_THREADS = 128
const PREFIX_THREADS = 256
const ARGMAX_THREADS = 1024
const SOFTCAP_THREADS = 256

/** Dims a lane of the attention kernel holds, and the lanes a key may take. */
const DIMS_PER_LANE = 8
const ATTENTION_LANES = [4, 8, 16, 32] as const
const HEADS_TOGETHER = 4
/** Blocks a multiprocessor needs of the attention kernel to keep its memory busy. */
const ATTENTION_BLOCKS_PER_MULTIPROCESSOR = 4
const MAX_ATTENTION_SPLITS = 32

const ACTIVATIONS: Readonly<Record<Activation, number>> = { silu: 0, gelu: 1, 'gelu-tanh': 2, relu: 3 }
const QK_NORMS = { none: 0, head: 1, row: 2 } as const

export interface ForwardContext {
  readonly device: Device
  readonly kernels: KernelModule
  readonly linears: Linears
  readonly activations: Activations
  readonly weights: DeviceWeights
  readonly spec: DecoderSpec
  readonly dtype: CudaDtype
  readonly stream: Stream
  readonly kv: { readonly address: number; readonly layerElements: number; readonly blockSize: number }
}

interface NormPlace {
  readonly weights: NormWeights
  readonly site: number
}

export class Forward {
  readonly #context: ForwardContext
  readonly #suffix: string
  readonly #elementBytes: number

  constructor(context: ForwardContext) {
    this.#context = context
    const { suffix, numBytes } = DTYPES[context.dtype]
    this.#suffix = suffix
    this.#elementBytes = numBytes
  }

  /** Keys and values that adapters give, where their blocks expect them. Before `run`. */
  writePrefixes({ given }: PackedStep): void {
    const { kernels, kv, spec } = this.#context
    if (given.count === 0) return
    const params = kernels.params().pointer(given.adapters).pointer(given.rows).pointer(given.slots)
    params.pointer(kv.address).long(kv.layerElements).int(spec.numKvHeads).int(spec.headDim).int(kv.blockSize)
    this.#launch('write_prefix', [given.count, spec.numLayers], PREFIX_THREADS)
  }

  /** Leaves logits of the step's logit rows in `logits`. */
  run(step: PackedStep, capacity: StepCapacity): void {
    const { weights, spec } = this.#context
    this.#embed(step, capacity)
    let previous: NormPlace | null = null
    weights.layers.forEach((layer, index) => {
      const place = (role: 'preAttn' | 'postAttn' | 'preMlp' | 'postMlp'): NormPlace => ({
        weights: layer.norms[role],
        site: normIndex(index, role),
      })
      this.#residualNorm(step, capacity.numTokens, previous, place('preAttn'))
      this.#attention(step, capacity, layer, index)
      this.#residualNorm(step, capacity.numTokens, place('postAttn'), place('preMlp'))
      this.#mlp(step, capacity, layer, at(spec.layers, index))
      previous = place('postMlp')
    })
    this.#logits(step, capacity, previous)
  }

  /** Largest score of each logit row to `tokenIds`. */
  argmax(step: PackedStep, numRows: number): void {
    const { spec } = this.#context
    const params = this.#params().pointer(countAddress(step, 'logitRows')).pointer(this.#address('logits'))
    params.pointer(this.#address('tokenIds')).int(spec.vocabSize)
    this.#context.kernels.launch(this.#context.stream, 'argmax', [numRows], [ARGMAX_THREADS])
  }

  #embed({ addresses }: PackedStep, { numTokens }: StepCapacity): void {
    const { weights, spec } = this.#context
    const params = this.#params().pointer(addresses.header).pointer(addresses.tokenIds).pointer(addresses.positions)
    params.pointer(addresses.adapters).pointer(weights.embed).pointer(weights.positions).pointer(this.#address('hidden'))
    params.int(spec.hiddenSize).float(spec.embedScale)
    this.#launch('embed', [numTokens], EMBED_THREADS)
  }

  /** hidden += post(delta) where there is a delta; normed = pre(hidden). */
  #residualNorm(step: PackedStep, numRows: number, post: NormPlace | null, pre: NormPlace): void {
    const { addresses } = step
    const params = this.#params().pointer(addresses.adapters).pointer(0).pointer(countAddress(step, 'tokens'))
    this.#launchNorm(params, numRows, post, pre, 'normed')
  }

  #launchNorm(params: ParamWriter, numRows: number, post: NormPlace | null, pre: NormPlace, out: ActivationName): void {
    const { spec } = this.#context
    params
      .pointer(this.#address('hidden'))
      .pointer(post === null ? 0 : this.#address('delta'))
      .pointer(this.#address(out))
    for (const place of [post, pre]) {
      params
        .pointer(place?.weights.weight ?? 0)
        .pointer(place?.weights.bias ?? 0)
        .int(place?.site ?? 0)
        .int(0)
    }
    params
      .int(spec.hiddenSize)
      .int(spec.norm.kind === 'layer' ? 1 : 0)
      .float(spec.norm.eps)
    this.#launch('residual_norm', [numRows], NORM_THREADS)
  }

  #attention(step: PackedStep, { numTokens }: StepCapacity, layer: LayerWeights, index: number): void {
    this.#linear(layer.qkv, step, { x: 'normed', y: 'qkv', numRows: numTokens })
    this.#qkRopeKv(step, numTokens, layer, index)
    this.#attend(step, numTokens, at(this.#context.spec.layers, index), index)
    this.#linear(layer.o, step, { x: 'attention', y: 'delta', numRows: numTokens })
  }

  #qkRopeKv({ addresses }: PackedStep, numTokens: number, layer: LayerWeights, index: number): void {
    const { spec, kv } = this.#context
    const { qNorm, kNorm } = layer.norms
    const params = this.#params().pointer(addresses.header).pointer(addresses.positions).pointer(addresses.slotMapping)
    params.pointer(addresses.adapters).pointer(this.#address('qkv')).pointer(this.#layerKv(index))
    params.pointer(layer.cosines).pointer(layer.sines)
    params.pointer(qNorm.weight).pointer(qNorm.bias).pointer(kNorm.weight).pointer(kNorm.bias)
    params.int(normIndex(index, 'qNorm')).int(normIndex(index, 'kNorm')).int(QK_NORMS[spec.qkNorm])
    params
      .int(spec.norm.kind === 'layer' ? 1 : 0)
      .int(spec.numHeads)
      .int(spec.numKvHeads)
      .int(spec.headDim)
    params
      .int(at(spec.layers, index).rope?.rotaryDim ?? 0)
      .int(kv.blockSize)
      .float(spec.norm.eps)
    const numGroups = spec.qkNorm === 'row' ? 1 : Math.ceil((spec.numHeads + spec.numKvHeads) / ROPE_HEADS)
    this.#launch('qk_rope_kv', [numTokens, numGroups], ROPE_THREADS)
  }

  #attend({ addresses }: PackedStep, numTokens: number, layer: LayerSpec, index: number): void {
    const { spec, kv, activations, device, dtype } = this.#context
    const { numHeads, numKvHeads, headDim } = spec
    const lanes = ATTENTION_LANES.find((each) => each * DIMS_PER_LANE >= headDim)
    invariant(lanes !== undefined, 'checked when the model was opened')
    const heads = dtype === 'float32' || numHeads === numKvHeads ? 1 : HEADS_TOGETHER
    const numGroups = numKvHeads * Math.ceil(numHeads / numKvHeads / heads)
    const wanted = ATTENTION_BLOCKS_PER_MULTIPROCESSOR * device.facts.numMultiprocessors
    const numSplits = Math.max(1, Math.min(MAX_ATTENTION_SPLITS, Math.floor(wanted / (numTokens * numGroups))))
    if (numSplits > 1) {
      const numPartials = numTokens * numHeads * numSplits
      activations.reserve('attentionSums', numPartials * headDim * FLOAT_BYTES)
      activations.reserve('attentionStats', numPartials * 2 * FLOAT_BYTES)
    }
    const write = (): void => {
      const params = this.#params().pointer(addresses.header).pointer(addresses.numVisible).pointer(addresses.seqOfRow)
      params.pointer(addresses.blockTables).pointer(this.#address('qkv')).pointer(this.#layerKv(index))
      params.pointer(this.#address('attention'))
      params.pointer(this.#address('attentionSums')).pointer(this.#address('attentionStats'))
      params
        .int((numHeads + 2 * numKvHeads) * headDim)
        .int(numHeads)
        .int(numKvHeads)
        .int(headDim)
        .int(kv.blockSize)
      params
        .int(layer.slidingWindow ?? 0)
        .int(numSplits)
        .float(spec.attentionScale)
        .float(spec.attentionSoftcap ?? 0)
    }
    write()
    this.#launch(`attention_${lanes}x${heads}`, [numTokens, numGroups, numSplits], ATTENTION_THREADS)
    if (numSplits === 1) return
    write()
    this.#launch('attention_combine', [numTokens, numHeads], ATTENTION_THREADS)
  }

  #mlp(step: PackedStep, { numTokens }: StepCapacity, layer: LayerWeights, { mlp }: LayerSpec): void {
    this.#linear(layer.mlpIn, step, { x: 'normed', y: 'mlpIn', numRows: numTokens })
    const width = layer.down.numIn
    const params = this.#params().pointer(countAddress(step, 'tokens')).pointer(this.#address('mlpIn'))
    params
      .pointer(this.#address('mlpActive'))
      .int(width)
      .int(mlp.kind === 'gated' ? 1 : 0)
      .int(ACTIVATIONS[mlp.activation])
    this.#launch('activation', [Math.ceil(width / ACTIVATION_COLUMNS), numTokens], ACTIVATION_THREADS)
    this.#linear(layer.down, step, { x: 'mlpActive', y: 'delta', numRows: numTokens })
  }

  #logits(step: PackedStep, { numLogitRows }: StepCapacity, post: NormPlace | null): void {
    const { weights, spec, kernels, stream, linears } = this.#context
    if (numLogitRows === 0) return
    const { addresses } = step
    const params = this.#params().pointer(addresses.logitAdapters).pointer(addresses.logitRows)
    params.pointer(countAddress(step, 'logitRows'))
    this.#launchNorm(params, numLogitRows, post, { weights: weights.finalNorm, site: finalNormIndex(spec) }, 'headIn')
    const input: LinearInput = {
      x: this.#address('headIn'),
      y: this.#address('logits'),
      numRows: numLogitRows,
      isHead: true,
    }
    linears.run(weights.head, step, input)
    if (spec.finalSoftcap === null) return
    const count = numLogitRows * spec.vocabSize
    this.#params().pointer(this.#address('logits')).long(count).float(spec.finalSoftcap)
    kernels.launch(stream, 'softcap', [Math.ceil(count / SOFTCAP_THREADS)], [SOFTCAP_THREADS])
  }

  #linear(
    group: LinearGroup,
    step: PackedStep,
    { x, y, numRows }: { readonly x: ActivationName; readonly y: ActivationName; readonly numRows: number },
  ): void {
    const input = { x: this.#address(x), y: this.#address(y), numRows, isHead: false }
    this.#context.linears.run(group, step, input)
  }

  #layerKv(index: number): number {
    const { kv } = this.#context
    return kv.address + index * kv.layerElements * this.#elementBytes
  }

  #address(name: ActivationName): number {
    return this.#context.activations.address(name)
  }

  #params(): ParamWriter {
    return this.#context.kernels.params()
  }

  #launch(name: string, grid: readonly [number, number?, number?], threads: number): void {
    this.#context.kernels.launch(this.#context.stream, `${name}_${this.#suffix}`, grid, [threads])
  }
}
