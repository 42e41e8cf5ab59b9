// Base parameters on the device: linears of one input as one matrix, norms and rotation tables in float32.

import { closeSync, openSync, readSync } from 'node:fs'
import { LorikeetError } from '../../errors.ts'
import type { NormRole, RopeSpec, TensorRef } from '../../model/decoder-spec.ts'
import type { ModelSource } from '../../model/model-source.ts'
import { fillRope } from '../../model/rope.ts'
import type { DeviceBuffer } from './buffer.ts'
import type { Device } from './device.ts'
import { type CudaDtype, DTYPES } from './dtype.ts'
import { type GroupName, paddedWidth } from './sites.ts'
import type { Uploader } from './uploader.ts'

export interface LinearPart {
  /** Canonical name: `layers.0.q`. */
  readonly site: string
  /** Padded; the head's are the vocabulary. */
  readonly numOut: number
  /** Rows the checkpoint has. */
  readonly numStored: number
  /** Column of the group's output where the part begins. */
  readonly firstColumn: number
}

export interface LinearGroup {
  readonly name: GroupName
  readonly numIn: number
  readonly numOut: number
  readonly parts: readonly LinearPart[]
  /** [numOut, numIn] */
  readonly weight: number
  /** [numOut] of the element type (float32 at the head); 0 = none. */
  readonly bias: number
}

export interface NormWeights {
  readonly weight: number // float32, Gemma's +1 added; 0 = no such norm
  readonly bias: number
}

export interface LayerWeights {
  readonly qkv: LinearGroup
  readonly o: LinearGroup
  readonly mlpIn: LinearGroup
  readonly down: LinearGroup
  readonly norms: Readonly<Record<NormRole, NormWeights>>
  /** [numPositions, rotaryDim / 2] each; 0 = no rotation. */
  readonly cosines: number
  readonly sines: number
}

export interface DeviceWeights {
  readonly embed: number
  /** 0 = none. */
  readonly positions: number
  readonly layers: readonly LayerWeights[]
  readonly finalNorm: NormWeights
  readonly head: LinearGroup
}

export interface WeightOptions {
  readonly device: Device
  readonly uploader: Uploader
  readonly model: ModelSource
  readonly dtype: CudaDtype
  /** Positions that rotation tables must reach. */
  readonly numPositions: number
  readonly onProgress: (loadedBytes: number) => void
}

const NO_NORM: NormWeights = { weight: 0, bias: 0 }

/** Loads every parameter. Its buffers are freed with `dispose`. */
export class WeightLoader implements Disposable {
  readonly #options: WeightOptions
  readonly #buffers: DeviceBuffer[] = []
  readonly #ropes = new Map<string, { cosines: number; sines: number }>()
  #loadedBytes = 0

  constructor(options: WeightOptions) {
    this.#options = options
  }

  load(): DeviceWeights {
    const { spec } = this.#options.model
    const embed = this.#matrix(partsOf('head', [['embed', spec.vocabSize]]), spec.hiddenSize)
    const weights = {
      embed,
      positions: spec.learnedPositions ? this.#matrix(partsOf('head', [['positions', spec.maxPositions]]), spec.hiddenSize) : 0,
      layers: spec.layers.map((_, index) => this.#layer(index)),
      finalNorm: this.#norm('finalNorm'),
      head: this.#head(embed),
    }
    this.#options.uploader.stream.synchronize()
    return weights
  }

  [Symbol.dispose](): void {
    for (const buffer of this.#buffers.splice(0)) buffer[Symbol.dispose]()
  }

  #layer(index: number): LayerWeights {
    const { spec } = this.#options.model
    const layer = spec.layers[index]
    const mlp = layer?.mlp
    if (layer === undefined || mlp === undefined || mlp.kind === 'experts') {
      const hint = 'the cuda backend serves dense models; use --backend onnx'
      throw new LorikeetError('MODEL_UNSUPPORTED', { field: 'model_type', value: spec.modelType, hint })
    }
    const { hiddenSize, numHeads, numKvHeads, headDim, norms } = spec
    const inner = mlp.intermediateSize
    const norm = (role: NormRole) => (norms.has(role) ? this.#norm(`layers.${index}.${role}`) : NO_NORM)
    const group = (name: GroupName, numIn: number, roles: Readonly<Record<string, number>>) =>
      this.#group(
        name,
        numIn,
        Object.entries(roles).map(([role, numOut]) => [`layers.${index}.${role}`, numOut]),
      )
    const kvWidth = numKvHeads * headDim
    return {
      qkv: group('qkv', hiddenSize, { q: numHeads * headDim, k: kvWidth, v: kvWidth }),
      o: group('o', numHeads * headDim, { o: hiddenSize }),
      mlpIn: group('mlpIn', hiddenSize, mlp.kind === 'gated' ? { gate: inner, up: inner } : { up: inner }),
      down: group('down', inner, { down: hiddenSize }),
      norms: {
        preAttn: norm('preAttn'),
        postAttn: norm('postAttn'),
        preMlp: norm('preMlp'),
        postMlp: norm('postMlp'),
        qNorm: norm('qNorm'),
        kNorm: norm('kNorm'),
      },
      ...this.#rope(layer.rope),
    }
  }

  #head(embed: number): LinearGroup {
    const { model } = this.#options
    const { spec } = model
    const sites = [['lmHead', spec.vocabSize]] as const
    if (!spec.tiedHead) return this.#group('head', spec.hiddenSize, sites)
    const parts = partsOf('head', sites)
    return { name: 'head', numIn: spec.hiddenSize, numOut: spec.vocabSize, parts, weight: embed, bias: 0 }
  }

  #group(name: GroupName, numStoredIn: number, sites: readonly (readonly [string, number])[]): LinearGroup {
    const parts = partsOf(name, sites)
    const numIn = paddedWidth(numStoredIn)
    const numOut = parts.reduce((sum, part) => sum + part.numOut, 0)
    return { name, numIn, numOut, parts, weight: this.#matrix(parts, numStoredIn), bias: this.#bias(name, parts, numOut) }
  }

  /** Parts one under another, [padded rows of all parts, padded columns]. */
  #matrix(parts: readonly LinearPart[], numColumns: number): number {
    const numIn = paddedWidth(numColumns)
    const { dtype, model, onProgress } = this.#options
    const { numBytes } = DTYPES[dtype]
    const numOut = parts.reduce((sum, part) => sum + part.numOut, 0)
    const target = this.#allocate(numOut * numIn * numBytes)
    const isPadded = numIn !== numColumns || parts.some(({ numStored, numOut: rows }) => rows !== numStored)
    if (isPadded) this.#options.uploader.stream.clear(target, numOut * numIn * numBytes)
    for (const { site, numStored: rows, firstColumn } of parts) {
      const ref = model.parameters.get(site)
      const at = target + firstColumn * numIn * numBytes
      if (ref !== undefined && isRaw(ref, dtype) && numIn === numColumns) this.#copyFile(ref, rows * numIn * numBytes, at)
      else this.#copyConverted(model.read(site), rows, numColumns, at)
      this.#loadedBytes += rows * numColumns * Float32Array.BYTES_PER_ELEMENT
      onProgress(this.#loadedBytes)
    }
    return target
  }

  /** A checkpoint in the backend's own type goes from the file to the device untouched. */
  #copyFile(ref: TensorRef, numBytes: number, target: number): void {
    const file = openSync(ref.file, 'r')
    try {
      this.#options.uploader.copyFrom(numBytes, target, (into, start) => {
        for (let done = 0; done < into.length; ) {
          const count = readSync(file, into, done, into.length - done, ref.byteOffset + start + done)
          if (count === 0) throw new LorikeetError('SAFETENSORS_INVALID', { file: ref.file, reason: 'the file ends early' })
          done += count
        }
      })
    } finally {
      closeSync(file)
    }
  }

  #copyConverted(source: Float32Array, numRows: number, numColumns: number, target: number): void {
    const { uploader } = this.#options
    const copy = {
      source,
      numRows,
      numColumns,
      target,
      ldOut: paddedWidth(numColumns),
      isTransposed: false,
      scale: 1,
      rowScale: null,
    }
    uploader.finish(uploader.copyPacked(copy))
  }

  #bias(name: GroupName, parts: readonly LinearPart[], numOut: number): number {
    const { model, dtype } = this.#options
    if (!parts.some(({ site }) => model.parameters.has(`${site}.bias`))) return 0
    const bias = new Float32Array(numOut)
    for (const { site, firstColumn } of parts) {
      if (model.parameters.has(`${site}.bias`)) bias.set(model.read(`${site}.bias`), firstColumn)
    }
    if (name === 'head') return this.#floats(bias)
    const target = this.#allocate(numOut * DTYPES[dtype].numBytes)
    this.#copyConverted(bias, 1, numOut, target)
    return target
  }

  #norm(site: string): NormWeights {
    const { model } = this.#options
    const { weightOffset } = model.spec.norm
    const weight = model.read(site).map((value) => value + weightOffset)
    const bias = model.parameters.has(`${site}.bias`) ? this.#floats(model.read(`${site}.bias`)) : 0
    return { weight: this.#floats(weight), bias }
  }

  /** One table a distinct rotation: cheaper than angles by the step, and exact where scaling depends on the position. */
  #rope(rope: RopeSpec | null): { readonly cosines: number; readonly sines: number } {
    if (rope === null) return { cosines: 0, sines: 0 }
    const key = JSON.stringify(rope)
    const known = this.#ropes.get(key)
    if (known !== undefined) return known
    const { numPositions } = this.#options
    const numElements = (numPositions * rope.rotaryDim) / 2
    const [cosines, sines] = [new Float32Array(numElements), new Float32Array(numElements)]
    fillRope(
      rope,
      Int32Array.from({ length: numPositions }, (_, i) => i),
      numPositions,
      cosines,
      sines,
    )
    const tables = { cosines: this.#floats(cosines), sines: this.#floats(sines) }
    this.#ropes.set(key, tables)
    return tables
  }

  #floats(values: Float32Array): number {
    const { uploader } = this.#options
    const target = this.#allocate(values.byteLength)
    uploader.finish(uploader.copyBytes(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), target))
    return target
  }

  #allocate(numBytes: number): number {
    const buffer = this.#options.device.allocate(numBytes, 'the weights of the model')
    this.#buffers.push(buffer)
    return buffer.address
  }
}

function partsOf(group: GroupName, sites: readonly (readonly [string, number])[]): readonly LinearPart[] {
  let firstColumn = 0
  return sites.map(([site, numStored]) => {
    const numOut = group === 'head' ? numStored : paddedWidth(numStored)
    const part = { site, numOut, numStored, firstColumn }
    firstColumn += numOut
    return part
  })
}

function isRaw(ref: TensorRef, dtype: CudaDtype): boolean {
  return ref.dtype === DTYPES[dtype].stored && !ref.isTransposed
}
