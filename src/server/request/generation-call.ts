// The steps from fields to a GenerationRequest that completions and chat share, whatever protocol they came by.

import type { SamplingParams } from '../../core/sampling-params.ts'
import type { AdapterInfo } from '../../engine/messages.ts'
import { LorikeetError } from '../../errors.ts'
import type { GenerationRequest } from '../generation/generation.ts'
import { type Prompt, type PromptInput, type PromptRules, readPrompt, resolveMaxTokens } from '../generation/prompt.ts'
import type { ServerContext } from '../generation/server-context.ts'
import { createTokenNames, type TokenNames } from '../generation/token-names.ts'
import type { TraceHeaders } from '../generation/trace-headers.ts'
import { fieldInvalid } from './fields.ts'
import { buildSampling, checkLogprobs, type SamplingValues } from './sampling.ts'

// Each choice is a request of its own in the engine; the largest evaluation batches ask for a thousand.
const MAX_CHOICES = 4096

/** What a request wants to see of its result. */
export interface ResultOptions {
  readonly names: TokenNames
  /** Alternatives an output token; null = no logprobs. */
  readonly numTop: number | null
  /** The same for `prompt_logprobs`. */
  readonly numPromptTop: number | null
  readonly returnsTokenIds: boolean
  /** Put before the output of each prompt; null = no echo. */
  readonly echoTexts: readonly string[] | null
  readonly skipsSpecialTokens: boolean
}

export interface StreamOptions {
  readonly includesUsage: boolean
  /** Every chunk carries the usage so far. */
  readonly hasContinuousUsage: boolean
  /** Tokens a chunk. */
  readonly interval: number
  /** Chunks are sent for their token ids even when they have no text. */
  readonly sendsEveryToken: boolean
}

/** What a protocol knows of a call before its fields are read. */
export interface CallHead {
  /** Epoch milliseconds. */
  readonly arrivedAtMs: number
  readonly trace: TraceHeaders | null
  /** Id of the response, given the `request_id` among the fields. */
  readonly responseId: (fieldId: string | null) => string
}

/** A request that was read and found good. */
export interface ReadCall {
  readonly request: GenerationRequest
  readonly result: ResultOptions
  /** Null unless the request streams. */
  readonly stream: StreamOptions | null
}

export interface CallInput {
  readonly responseId: string
  readonly arrivedAtMs: number
  readonly trace: TraceHeaders | null
  readonly values: SamplingValues
  readonly adapter: AdapterInfo | null
  readonly prompts: readonly PromptInput[]
  readonly promptField: string
  readonly addSpecialTokens: boolean
  readonly numTop: number | null
  /** Prompt logprobs are needed for echo besides `prompt_logprobs`. */
  readonly isPromptScored: boolean
  readonly isContinuation: boolean
  /** The stated limit, and the one to use without; null = the rest of the context. */
  readonly maxTokens: number | null
  readonly maxTokensField: string
  readonly defaultMaxTokens: number | null
}

/** Tokenises and checks everything; nothing after this can be the client's fault. Throws 400s. */
export function buildGenerationRequest(input: CallInput, context: ServerContext): GenerationRequest {
  const { values } = input
  const { maxLogprobs } = context.config.server
  checkLogprobs('prompt_logprobs', values.prompt_logprobs, maxLogprobs)
  if (values.stream && values.prompt_logprobs !== null && values.prompt_logprobs !== 0) {
    throw fieldInvalid('prompt_logprobs', 'cannot be streamed')
  }
  if (values.stop.length > 0 && context.text.tokenizer === null) {
    throw new LorikeetError('NO_TOKENIZER', {}, { field: 'stop' })
  }
  const numChoices = input.prompts.length * values.n
  if (numChoices > MAX_CHOICES) throw fieldInvalid('n', `times the prompts gives ${numChoices} choices, over ${MAX_CHOICES}`)
  const sampling = buildSampling(values, {
    text: context.text,
    vocabSize: context.engine.model.vocabSize,
    maxLogprobs,
    logprobs: input.numTop,
    promptLogprobs: widest(values.prompt_logprobs, input.isPromptScored ? input.numTop : null),
  })
  const rules = promptRules(input, context)
  const prompts = input.prompts.map((prompt) => readPrompt(prompt, rules))
  return {
    responseId: input.responseId,
    prompts,
    numSamples: values.n,
    sampling: prompts.map((prompt) => withLimit(sampling, prompt, input, rules)),
    adapter: input.adapter,
    modelName: input.adapter?.name ?? context.resolver.baseName,
    priority: values.priority,
    cacheSalt: values.cache_salt ?? '',
    arrivedAtMs: input.arrivedAtMs,
    trace: input.trace,
    text: {
      tokenizer: context.text.tokenizer,
      stopStrings: values.stop,
      isStopIncluded: values.include_stop_str_in_output,
      skipSpecialTokens: values.skip_special_tokens,
    },
    isContinuation: input.isContinuation,
  }
}

function promptRules(input: CallInput, { text, engine }: ServerContext): PromptRules {
  const { values } = input
  const { maxModelLen, vocabSize } = engine.model
  const numVirtualTokens = input.adapter?.numVirtualTokens ?? 0
  const room = maxModelLen - numVirtualTokens
  // -1 fills the context and leaves room for the output.
  const toContext = room - (input.maxTokens ?? Math.min(input.defaultMaxTokens ?? 1, room - 1))
  return {
    tokenizer: text.tokenizer,
    vocabSize,
    maxModelLen,
    numVirtualTokens,
    addSpecialTokens: input.addSpecialTokens,
    truncateTo: values.truncate_prompt_tokens === -1 ? Math.max(0, toContext) : values.truncate_prompt_tokens,
    truncationSide: values.truncation_side ?? text.tokenizer?.truncationSide ?? 'left',
    field: input.promptField,
  }
}

function withLimit(
  sampling: Omit<SamplingParams, 'maxTokens'>,
  prompt: Prompt,
  input: CallInput,
  rules: PromptRules,
): SamplingParams {
  const maxTokens = resolveMaxTokens(rules, prompt.tokenIds.length, input.maxTokens, input.defaultMaxTokens)
  if (sampling.minTokens > maxTokens) {
    throw fieldInvalid('min_tokens', `must be at most ${input.maxTokensField}, which is ${maxTokens}`)
  }
  return { ...sampling, maxTokens }
}

export function resultOptions(
  values: SamplingValues & { readonly return_tokens_as_token_ids: boolean | null },
  numTop: number | null,
  echoTexts: readonly string[] | null,
  context: ServerContext,
): ResultOptions {
  const isById = values.return_tokens_as_token_ids ?? context.config.server.returnTokensAsTokenIds
  return {
    names: createTokenNames(context.text.tokenizer, isById),
    numTop,
    numPromptTop: values.prompt_logprobs,
    returnsTokenIds: values.return_token_ids,
    echoTexts,
    skipsSpecialTokens: values.skip_special_tokens,
  }
}

/** Null unless the request streams. */
export function streamOptions(values: SamplingValues, context: ServerContext): StreamOptions | null {
  if (!values.stream) return null
  const includesUsage = values.stream_options?.include_usage ?? false
  return {
    includesUsage,
    // Without `include_usage` the other is without effect, which vLLM's own tests expect.
    hasContinuousUsage: includesUsage && (values.stream_options?.continuous_usage_stats ?? false),
    interval: values.stream_interval ?? context.config.server.streamInterval,
    sendsEveryToken: values.return_token_ids,
  }
}

/** The larger of two counts of alternatives, where -1 is the whole vocabulary and null none. */
function widest(first: number | null, second: number | null): number | null {
  if (first === null || second === null) return first ?? second
  return first === -1 || second === -1 ? -1 : Math.max(first, second)
}
