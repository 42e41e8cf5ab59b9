// Requests as clients of Triton's vLLM backend send them.

import type { ModelInferRequest } from '../../src/server/grpc/generated/inference/grpc_service.ts'

export interface TritonParts {
  readonly id: string
  /** '' = the base model. */
  readonly adapter: string
  readonly maxTokens: number
  readonly isStream: boolean
}

/** On the base model's name, whatever it is: the adapter stands in the sampling parameters. */
export function tritonRequest({ id, adapter, maxTokens, isStream }: TritonParts): ModelInferRequest {
  const sampling = { max_tokens: String(maxTokens), ignore_eos: true, ...(adapter === '' ? {} : { lora_name: adapter }) }
  const inputs = [
    { name: 'text_input', datatype: 'BYTES', content: bytesTensor('Once upon a time') },
    { name: 'stream', datatype: 'BOOL', content: Buffer.from([isStream ? 1 : 0]) },
    { name: 'sampling_parameters', datatype: 'BYTES', content: bytesTensor(JSON.stringify(sampling)) },
  ]
  return {
    modelName: '',
    modelVersion: '',
    id,
    parameters: {},
    inputs: inputs.map(({ name, datatype }) => ({ name, datatype, shape: [1n], parameters: {}, contents: undefined })),
    outputs: [],
    rawInputContents: inputs.map(({ content }) => content),
  }
}

/** A string tensor is its length in four bytes, little-endian, and its UTF-8 bytes. */
export function bytesTensor(text: string): Buffer {
  const bytes = Buffer.from(text)
  const length = Buffer.alloc(4)
  length.writeUInt32LE(bytes.length)
  return Buffer.concat([length, bytes])
}
