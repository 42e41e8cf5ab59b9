// The tensors of every model here, as metadata and as Triton's configuration tell them. They are those of Triton's vLLM backend.

import type { ModelMetadataResponse } from '../generated/inference/grpc_service.ts'
import { DataType, type ModelConfig } from '../generated/inference/model_config.ts'
import { MODEL_VERSION } from './infer-request.ts'
import { OUTPUTS } from './infer-response.ts'

const INPUTS = [
  { name: 'text_input', datatype: 'BYTES' },
  { name: 'stream', datatype: 'BOOL' },
  { name: 'sampling_parameters', datatype: 'BYTES' },
  { name: 'exclude_input_in_output', datatype: 'BOOL' },
  { name: 'return_finish_reason', datatype: 'BOOL' },
  { name: 'return_cumulative_logprob', datatype: 'BOOL' },
  { name: 'return_logprobs', datatype: 'BOOL' },
  { name: 'return_num_input_tokens', datatype: 'BOOL' },
  { name: 'return_num_output_tokens', datatype: 'BOOL' },
] as const

const TYPES = {
  BYTES: DataType.TYPE_STRING,
  BOOL: DataType.TYPE_BOOL,
  FP32: DataType.TYPE_FP32,
  UINT32: DataType.TYPE_UINT32,
} as const

/** One element a choice, but one in all for the prompt. */
function outputSize(name: string): bigint {
  return name === 'num_input_tokens' ? 1n : -1n
}

export function modelMetadata(name: string): ModelMetadataResponse {
  return {
    name,
    versions: [MODEL_VERSION],
    platform: 'lorikeet',
    inputs: INPUTS.map((input) => ({ ...input, shape: [1n] })),
    outputs: OUTPUTS.map((output) => ({ ...output, shape: [outputSize(output.name)] })),
    properties: {},
  }
}

export function modelConfig(name: string): ModelConfig {
  return {
    name,
    platform: '',
    backend: 'lorikeet',
    maxBatchSize: 0,
    input: INPUTS.map((input) => ({
      name: input.name,
      dataType: TYPES[input.datatype],
      dims: [1n],
      optional: input.name !== 'text_input',
    })),
    output: OUTPUTS.map((output) => ({
      name: output.name,
      dataType: TYPES[output.datatype],
      dims: [outputSize(output.name)],
    })),
    modelTransactionPolicy: { decoupled: true },
  }
}
