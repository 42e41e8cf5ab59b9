// Inference requests with the tensors of Triton's vLLM backend, as bodies of completions.

import { isJsonObject, type JsonObject } from '../../../core/json.ts'
import { LorikeetError } from '../../../errors.ts'
import type { ServerContext } from '../../generation/server-context.ts'
import { readCompletionCall } from '../../request/completion-call.ts'
import { COMPLETION_FIELDS } from '../../request/completion-fields.ts'
import type { Field } from '../../request/fields.ts'
import { fieldInvalid } from '../../request/fields.ts'
import type { ReadCall } from '../../request/generation-call.ts'
import { type CallInfo, callHead } from '../calls.ts'
import type { InferParameter, ModelInferRequest } from '../generated/inference/grpc_service.ts'
import { InputTensors } from './tensors.ts'

export const MODEL_VERSION = '1'

/** Names that an error lists at most: there may be thousands. */
const MAX_LISTED_NAMES = 50

const RETURN_FLAGS = {
  finish_reason: 'return_finish_reason',
  cumulative_logprob: 'return_cumulative_logprob',
  logprobs: 'return_logprobs',
  num_input_tokens: 'return_num_input_tokens',
  num_output_tokens: 'return_num_output_tokens',
} as const
export type ExtraOutput = keyof typeof RETURN_FLAGS

export interface InferCall extends ReadCall {
  readonly inferRequest: ModelInferRequest
  readonly isStream: boolean
  readonly isRaw: boolean
  /** Put before the output; empty = nothing. */
  readonly prefix: string
  readonly extras: ReadonlySet<ExtraOutput>
  /** The client asked for logprobs itself. */
  readonly hasLogprobs: boolean
  /** After the last data comes a response without any. */
  readonly hasEmptyFinal: boolean
}

/** Throws what is wrong with the request, or why its adapter cannot be had. */
export async function readInferCall(
  request: ModelInferRequest,
  info: CallInfo,
  mayStream: boolean,
  context: ServerContext,
): Promise<InferCall> {
  context.generations.assertReady()
  checkVersion(request.modelName, request.modelVersion)
  const tensors = new InputTensors(request)
  const prompt = tensors.text('text_input')
  if (prompt === null) throw fieldInvalid('text_input', 'is required')
  const isStream = tensors.flag('stream') ?? false
  if (isStream && !mayStream) throw fieldInvalid('stream', 'needs ModelStreamInfer')
  const isInputExcluded = tensors.flag('exclude_input_in_output')
  if (isStream && isInputExcluded === false) {
    throw fieldInvalid('exclude_input_in_output', 'cannot be false with stream: streamed output never repeats the input')
  }
  const extras = (Object.keys(RETURN_FLAGS) as ExtraOutput[]).filter((name) => tensors.flag(RETURN_FLAGS[name]) ?? false)
  const { lora_name: lora, ...sampling } = samplingParameters(request, tensors)
  const body = {
    ...sampling,
    // A cumulative one needs them all.
    ...(extras.includes('cumulative_logprob') ? { logprobs: sampling['logprobs'] ?? 0 } : {}),
    model: request.modelName,
    lora_path: lora,
    prompt,
    stream: isStream,
  }
  const call = await readCall(body, info, context)
  return {
    ...call,
    inferRequest: request,
    isStream,
    isRaw: tensors.isRaw,
    prefix: isStream || isInputExcluded === true ? '' : prompt,
    extras: new Set(extras),
    hasLogprobs: sampling['logprobs'] !== undefined && sampling['logprobs'] !== null,
    hasEmptyFinal: booleanOf(request.parameters['triton_enable_empty_final_response']),
  }
}

async function readCall(body: JsonObject, info: CallInfo, context: ServerContext): Promise<ReadCall> {
  try {
    return await readCompletionCall(body, callHead('cmpl-', info), context)
  } catch (error) {
    const isUnknownLora = error instanceof LorikeetError && error.code === 'MODEL_NOT_FOUND' && error.field === 'lora_path'
    throw isUnknownLora ? loraNotSupported(String(body['lora_path']), context) : error
  }
}

/** In the words that clients of Triton look for, with a list as Python writes it. */
function loraNotSupported(name: string, { engine }: ServerContext): LorikeetError {
  const names = engine.adapters().map((adapter) => `'${adapter.name}'`)
  const more = names.length > MAX_LISTED_NAMES ? ', ...' : ''
  const shown = `[${names.slice(0, MAX_LISTED_NAMES).join(', ')}${more}]`
  return new LorikeetError('LORA_NOT_SUPPORTED', { name, names: shown }, { field: 'lora_name' })
}

/** There is one version of everything. */
export function checkVersion(model: string, version: string): void {
  if (version !== '' && version !== MODEL_VERSION) {
    throw new LorikeetError('MODEL_NOT_FOUND', { model: `${model} version ${version}` }, { field: 'model_version' })
  }
}

/** The tensor `sampling_parameters`, or without it the parameters of the request. */
function samplingParameters({ parameters }: ModelInferRequest, tensors: InputTensors): JsonObject {
  const source = tensors.text('sampling_parameters')
  if (source !== null) return withTypes(parseObject(source))
  const entries = Object.entries(parameters).filter(([name]) => !name.startsWith('triton_'))
  return withTypes(Object.fromEntries(entries.map(([name, value]) => [name, parameterValue(value)])))
}

function parseObject(source: string): JsonObject {
  let parsed: unknown
  try {
    parsed = JSON.parse(source)
  } catch (error) {
    throw new LorikeetError('FIELD_INVALID', { field: 'sampling_parameters', reason: 'is not JSON' }, { cause: error })
  }
  if (!isJsonObject(parsed)) throw fieldInvalid('sampling_parameters', 'must be an object')
  return parsed
}

const FIELDS: Readonly<Record<string, Field<unknown>>> = COMPLETION_FIELDS

/** Clients of Triton write numbers and switches as text: `"0.1"`, `"True"`. */
function withTypes(values: JsonObject): JsonObject {
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => {
      const type = Object.hasOwn(FIELDS, name) ? FIELDS[name]?.schema['type'] : undefined
      if (typeof value !== 'string') return [name, value]
      if (type === 'boolean' && /^(?:true|false)$/i.test(value)) return [name, value.toLowerCase() === 'true']
      const isNumber = (type === 'integer' || type === 'number') && value.trim() !== '' && Number.isFinite(Number(value))
      return [name, isNumber ? Number(value) : value]
    }),
  )
}

function parameterValue({ parameterChoice: choice }: InferParameter): unknown {
  switch (choice?.$case) {
    case 'boolParam':
      return choice.boolParam
    case 'int64Param':
      return Number(choice.int64Param)
    case 'stringParam':
      return choice.stringParam
    case 'doubleParam':
      return choice.doubleParam
    case 'uint64Param':
      return Number(choice.uint64Param)
    default:
      return null
  }
}

function booleanOf(parameter: InferParameter | undefined): boolean {
  return parameter?.parameterChoice?.$case === 'boolParam' && parameter.parameterChoice.boolParam
}
