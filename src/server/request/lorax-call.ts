// A LoRAX request as the one internal request. What it leaves out has LoRAX's defaults: greedy, and the rest of the context.

import { randomInt } from 'node:crypto'
import type { JsonObject } from '../../core/json.ts'
import type { GenerationRequest } from '../generation/generation.ts'
import type { AdapterSourceName } from '../generation/model-resolver.ts'
import type { ServerContext } from '../generation/server-context.ts'
import { renderChat } from './chat-call.ts'
import { type FieldValues, fieldInvalid, readFields } from './fields.ts'
import { buildGenerationRequest, type CallHead } from './generation-call.ts'
import { LORAX_COMPATIBLE_FIELDS, LORAX_PARAMETERS } from './lorax-fields.ts'
import { checkLogprobs, type SamplingValues } from './sampling.ts'
import { SAMPLING_FIELDS } from './sampling-fields.ts'

type Parameters = FieldValues<typeof LORAX_PARAMETERS>

const PREFIX = 'parameters.'
// Of drawn seeds: what a 32-bit unsigned integer holds, which every client can read.
const SEED_LIMIT = 2 ** 32

/** What a LoRAX client wants to see of its result. */
export interface LoraxResult {
  readonly inputs: string
  readonly isFullText: boolean
  readonly hasDetails: boolean
  readonly hasPrefill: boolean
  /** `alternative_tokens` of each token; null = none. */
  readonly numAlternatives: number | null
  /** `top_tokens` of each token; 0 = none. */
  readonly numTop: number
  /** Null for greedy decoding. */
  readonly seed: number | null
  readonly adapterSource: AdapterSourceName | null
}

export interface ReadLoraxCall {
  readonly request: GenerationRequest
  readonly result: LoraxResult
  readonly isStream: boolean
}

/** `isStream` null leaves it to the body. Throws what is wrong with the request, or why its adapter cannot be had. */
export async function readLoraxCall(
  body: JsonObject,
  isStream: boolean | null,
  head: CallHead,
  context: ServerContext,
): Promise<ReadLoraxCall> {
  const { inputs, parameters: stated, stream } = readFields(LORAX_COMPATIBLE_FIELDS, body)
  const parameters = stated ?? readFields(LORAX_PARAMETERS, {})
  const isStreamed = isStream ?? stream
  checkCombinations(parameters, isStreamed)
  const result = loraxResult(inputs, parameters)
  const { maxLogprobs } = context.config.server
  checkLogprobs(`${PREFIX}return_k_alternatives`, parameters.return_k_alternatives, maxLogprobs)
  checkLogprobs(`${PREFIX}top_n_tokens`, parameters.top_n_tokens, maxLogprobs)
  const adapter = await findAdapter(parameters, context)
  const request = buildGenerationRequest(
    {
      responseId: head.responseId(null),
      arrivedAtMs: head.arrivedAtMs,
      trace: head.trace,
      values: samplingValues(parameters, result.seed),
      adapter,
      prompts: [parameters.apply_chat_template ? renderInputs(inputs, context) : inputs],
      promptField: 'inputs',
      addSpecialTokens: !parameters.apply_chat_template,
      numTop: numLogprobs(parameters, isStreamed),
      isPromptScored: parameters.decoder_input_details,
      // The text is to be put behind the inputs.
      isContinuation: true,
      maxTokens: parameters.max_new_tokens,
      maxTokensField: `${PREFIX}max_new_tokens`,
      defaultMaxTokens: null,
    },
    context,
  )
  return { request, result, isStream: isStreamed }
}

function checkCombinations(parameters: Parameters, isStream: boolean): void {
  const refuse = (name: keyof Parameters, reason: string) => fieldInvalid(PREFIX + name, reason)
  if (isStream && parameters.best_of > 1) throw refuse('best_of', 'must be 1 when the answer is streamed')
  if (isStream && parameters.decoder_input_details) throw refuse('decoder_input_details', 'is not streamed')
  if (parameters.best_of === 1) return
  if (!isSampling(parameters)) throw refuse('best_of', 'over 1 needs sampling: set do_sample, or a temperature over 0')
  if (parameters.seed !== null) throw refuse('seed', 'must not be set when best_of is over 1')
}

/** Any parameter that only sampling has turns it on. */
function isSampling({ do_sample, temperature, top_k, top_p }: Parameters): boolean {
  if (temperature === 0) return false
  return do_sample || temperature !== null || top_k !== null || top_p !== null
}

function loraxResult(inputs: string, parameters: Parameters): LoraxResult {
  return {
    inputs,
    isFullText: parameters.return_full_text,
    hasDetails: parameters.details || parameters.decoder_input_details,
    hasPrefill: parameters.decoder_input_details,
    numAlternatives: parameters.return_k_alternatives,
    numTop: parameters.top_n_tokens,
    // Drawn here and not by the engine, because the client is told.
    seed: isSampling(parameters) ? (parameters.seed ?? randomInt(SEED_LIMIT)) : null,
    adapterSource: parameters.adapter_source,
  }
}

/** Every token of a stream and of details has its logprob; so has a choice among several. */
function numLogprobs(parameters: Parameters, isStream: boolean): number | null {
  const { details, decoder_input_details, best_of, return_k_alternatives, top_n_tokens } = parameters
  if (!isStream && !details && !decoder_input_details && best_of === 1) return null
  return Math.max(return_k_alternatives ?? 0, top_n_tokens)
}

/** The model's own generation defaults have no say here. */
function samplingValues(parameters: Parameters, seed: number | null): SamplingValues {
  return {
    ...readFields(SAMPLING_FIELDS, {}),
    temperature: isSampling(parameters) ? (parameters.temperature ?? 1) : 0,
    top_k: parameters.top_k ?? 0,
    top_p: parameters.top_p ?? 1,
    min_p: 0,
    repetition_penalty: parameters.repetition_penalty ?? 1,
    frequency_penalty: parameters.frequency_penalty,
    presence_penalty: parameters.presence_penalty,
    seed,
    n: parameters.best_of,
    stop: parameters.stop,
    include_stop_str_in_output: true,
    ignore_eos: parameters.ignore_eos_token,
    truncate_prompt_tokens: parameters.truncate,
    truncation_side: 'left',
    response_format: parameters.response_format,
  }
}

async function findAdapter(parameters: Parameters, { resolver }: ServerContext) {
  const { adapter_id: name, adapter_source: source, merged_adapters: merged } = parameters
  if (merged !== null) {
    if (name) throw fieldInvalid(`${PREFIX}merged_adapters`, 'must not be set beside adapter_id')
    return resolver.resolveMixture(merged, `${PREFIX}merged_adapters`, source)
  }
  if (!name) return null
  return resolver.resolveAdapter({ name, source, field: `${PREFIX}adapter_id`, sourceField: `${PREFIX}adapter_source` })
}

function renderInputs(inputs: string, { text }: ServerContext): string {
  const values = {
    add_generation_prompt: true,
    continue_final_message: false,
    documents: null,
    chat_template_kwargs: null,
  }
  return renderChat([{ role: 'user', content: inputs, extra: {} }], values, text)
}
