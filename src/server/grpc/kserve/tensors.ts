// Tensors of KServe's protocol, in their two encodings: typed contents beside each tensor, or raw bytes of all tensors in order.

import { fieldInvalid } from '../../request/fields.ts'
import type {
  InferTensorContents,
  ModelInferRequest,
  ModelInferResponse_InferOutputTensor,
} from '../generated/inference/grpc_service.ts'

// Raw BYTES: each element after its length, a little-endian uint32.
const LENGTH_BYTES = 4

export type OutputTensor =
  | { readonly name: string; readonly datatype: 'BYTES'; readonly values: readonly string[] }
  | { readonly name: string; readonly datatype: 'FP32' | 'UINT32'; readonly values: readonly number[] }

/** Inputs of one element each, by name. */
export class InputTensors {
  readonly isRaw: boolean
  readonly #request: ModelInferRequest

  /** Throws FIELD_INVALID when raw contents and inputs do not pair up. */
  constructor(request: ModelInferRequest) {
    this.#request = request
    this.isRaw = request.rawInputContents.length > 0
    if (this.isRaw && request.rawInputContents.length !== request.inputs.length) {
      throw fieldInvalid('raw_input_contents', `must have ${request.inputs.length} entries, one an input`)
    }
  }

  /** The single BYTES element as text; null when there is no such input. */
  text(name: string): string | null {
    const found = this.#find(name, 'BYTES')
    if (found === null) return null
    if (!this.isRaw) return single(found.contents?.bytesContents, name).toString('utf8')
    const { raw } = found
    const length = raw.length < LENGTH_BYTES ? -1 : raw.readUInt32LE(0)
    if (length !== raw.length - LENGTH_BYTES) throw fieldInvalid(name, 'must be one BYTES element after its length')
    return raw.toString('utf8', LENGTH_BYTES)
  }

  /** The single BOOL element; null when there is no such input. */
  flag(name: string): boolean | null {
    const found = this.#find(name, 'BOOL')
    if (found === null) return null
    if (!this.isRaw) return single(found.contents?.boolContents, name)
    if (found.raw.length !== 1) throw fieldInvalid(name, 'must be one BOOL element')
    return found.raw[0] !== 0
  }

  #find(name: string, datatype: string): { contents: InferTensorContents | undefined; raw: Buffer } | null {
    const index = this.#request.inputs.findIndex((input) => input.name === name)
    const input = this.#request.inputs[index]
    if (input === undefined) return null
    if (input.datatype !== datatype) throw fieldInvalid(name, `must have datatype ${datatype}, not '${input.datatype}'`)
    return { contents: input.contents, raw: this.#request.rawInputContents[index] ?? Buffer.alloc(0) }
  }
}

function single<T>(values: readonly T[] | undefined, name: string): T {
  const [value] = values ?? []
  if (value === undefined || values?.length !== 1) throw fieldInvalid(name, 'must have exactly one element')
  return value
}

export interface EncodedOutputs {
  readonly outputs: ModelInferResponse_InferOutputTensor[]
  readonly rawOutputContents: Buffer[]
}

export function encodeOutputs(tensors: readonly OutputTensor[], isRaw: boolean): EncodedOutputs {
  return {
    outputs: tensors.map((tensor) => ({
      name: tensor.name,
      datatype: tensor.datatype,
      shape: [BigInt(tensor.values.length)],
      parameters: {},
      contents: isRaw ? undefined : typedContents(tensor),
    })),
    rawOutputContents: isRaw ? tensors.map(rawContents) : [],
  }
}

function typedContents(tensor: OutputTensor): InferTensorContents {
  return {
    boolContents: [],
    intContents: [],
    int64Contents: [],
    uintContents: tensor.datatype === 'UINT32' ? [...tensor.values] : [],
    uint64Contents: [],
    fp32Contents: tensor.datatype === 'FP32' ? [...tensor.values] : [],
    fp64Contents: [],
    bytesContents: tensor.datatype === 'BYTES' ? tensor.values.map((text) => Buffer.from(text, 'utf8')) : [],
  }
}

function rawContents(tensor: OutputTensor): Buffer {
  if (tensor.datatype === 'BYTES') {
    return Buffer.concat(
      tensor.values.flatMap((text) => {
        const bytes = Buffer.from(text, 'utf8')
        const length = Buffer.alloc(LENGTH_BYTES)
        length.writeUInt32LE(bytes.length)
        return [length, bytes]
      }),
    )
  }
  const raw = Buffer.alloc(tensor.values.length * 4)
  tensor.values.forEach((value, index) => {
    if (tensor.datatype === 'FP32') raw.writeFloatLE(value, index * 4)
    else raw.writeUInt32LE(value, index * 4)
  })
  return raw
}
