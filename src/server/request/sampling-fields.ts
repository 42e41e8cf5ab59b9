// Fields that completions and chat completions share. What is not built is refused by name, never silently dropped.

import { isJsonObject } from '../../core/json.ts'
import { ADAPTER_SOURCES, type AdapterShare } from '../generation/model-resolver.ts'
import {
  boolean,
  custom,
  type Field,
  fieldInvalid,
  fieldUnsupported,
  ignored,
  integer,
  list,
  nullable,
  number,
  oneOf,
  readFields,
  record,
  required,
  string,
  tableSchema,
  unsupported,
} from './fields.ts'

// OpenAI's limit.
const MAX_STOPS = 4
// vLLM's limit; each word is looked up after every token.
const MAX_BAD_WORDS = 128
// OpenAI's limit.
const MAX_CHOICES = 128
// OpenAI's limit; larger values are clamped, as vLLM does.
const MAX_BIAS = 100

// A sum holds the weights of each of its members: more of them is a mistake, or an attack on memory.
export const MAX_ADAPTERS = 16

const NO_STRUCTURED_OUTPUT = 'structured outputs are not built yet'
const NO_BEAM_SEARCH = 'beam search is not built'

export const SAMPLING_FIELDS = {
  model: string(),
  lora_path: string(),
  adapters: adaptersField(),
  // LoRAX's, on its OpenAI routes. There is no hub that a token would open.
  adapter_source: oneOf(ADAPTER_SOURCES),
  api_token: ignored(),
  max_tokens: integer(null, { min: 0 }),
  temperature: number(null, { min: 0, max: 2 }),
  top_p: number(null, { min: 0, max: 1, isMinExclusive: true }),
  top_k: integer(null, { min: -1 }),
  min_p: number(null, { min: 0, max: 1 }),
  repetition_penalty: number(null, { min: 0, isMinExclusive: true }),
  presence_penalty: number(0, { min: -2, max: 2 }),
  frequency_penalty: number(0, { min: -2, max: 2 }),
  seed: integer(null),
  stop: stopField(),
  stop_token_ids: list(integer(null, { min: 0 })),
  include_stop_str_in_output: boolean(false),
  ignore_eos: boolean(false),
  min_tokens: integer(0, { min: 0 }),
  logit_bias: logitBiasField(),
  allowed_token_ids: nullable(list(integer(null, { min: 0 }), { minItems: 1 })),
  bad_words: list(string({ isEmptyAllowed: false }), { maxItems: MAX_BAD_WORDS }),
  n: integer(1, { min: 1, max: MAX_CHOICES }),
  best_of: integer(null, { min: 0 }),
  prompt_logprobs: integer(null, { min: -1 }),
  echo: boolean(false),
  stream: boolean(false),
  stream_options: record({ include_usage: boolean(false), continuous_usage_stats: boolean(false) }),
  skip_special_tokens: boolean(true),
  // Without effect on Hugging Face's fast tokenizers, of which this is one.
  spaces_between_special_tokens: boolean(true),
  truncate_prompt_tokens: integer(null, { min: -1 }),
  truncation_side: oneOf(['left', 'right']),
  return_token_ids: boolean(false),
  priority: integer(0),
  request_id: string({ isEmptyAllowed: false }),
  session_id: ignored(),
  cache_salt: string({ isEmptyAllowed: false }),
  stream_interval: integer(null, { min: 1 }),
  response_format: responseFormatField(),
  structured_outputs: unsupported(NO_STRUCTURED_OUTPUT),
  guided_json: unsupported(NO_STRUCTURED_OUTPUT),
  guided_regex: unsupported(NO_STRUCTURED_OUTPUT),
  guided_choice: unsupported(NO_STRUCTURED_OUTPUT),
  guided_grammar: unsupported(NO_STRUCTURED_OUTPUT),
  use_beam_search: unsupported(NO_BEAM_SEARCH, (value) => value === false),
  length_penalty: unsupported(NO_BEAM_SEARCH, (value) => value === 1),
  user: ignored(),
  metadata: ignored(),
  store: ignored(),
  service_tier: ignored(),
  vllm_xargs: unsupported('no extra argument is defined', isEmptyObject),
  kv_transfer_params: unsupported('there is no cache transfer', isEmptyObject),
  logprob_token_ids: unsupported('ask for logprobs instead'),
  thinking_token_budget: unsupported('there is no reasoning parser'),
  repetition_detection: unsupported('it is not built'),
}

/** `return_tokens_as_token_ids` falls back to a server flag, which a table cannot know: null = absent. */
export const TOKENS_AS_IDS_FIELD: Field<boolean | null> = nullable(boolean(false))

function isEmptyObject(value: unknown): boolean {
  return isJsonObject(value) && Object.keys(value).length === 0
}

function stopField(): Field<readonly string[]> {
  const many = list(string({ isEmptyAllowed: false }), { maxItems: MAX_STOPS })
  const schema = { oneOf: [{ type: 'string', minLength: 1 }, many.schema] }
  return custom<readonly string[]>(schema, [], (value, path) => {
    if (typeof value !== 'string') return many.read(value, path)
    if (value === '') throw fieldInvalid(path, 'must not be empty')
    return [value]
  })
}

function logitBiasField(): Field<readonly (readonly [number, number])[]> {
  const schema = { type: 'object', additionalProperties: { type: 'number' } }
  return custom<readonly (readonly [number, number])[]>(schema, [], (value, path) => {
    if (!isJsonObject(value)) throw fieldInvalid(path, 'must be an object of token ids and biases')
    return Object.entries(value).map(([key, bias]) => {
      if (!/^\d{1,9}$/.test(key)) throw fieldInvalid(path, `the key ${JSON.stringify(key.slice(0, 40))} is not a token id`)
      if (typeof bias !== 'number') throw fieldInvalid(path, `the bias of token ${key} is not a number`)
      return [Number(key), Math.min(MAX_BIAS, Math.max(-MAX_BIAS, bias))]
    })
  })
}

function responseFormatField(): Field<null> {
  const schema = { type: 'object', properties: { type: { type: 'string', enum: ['text'] } }, required: ['type'] }
  return custom<null>(schema, null, (value, path) => {
    const type = isJsonObject(value) ? value['type'] : undefined
    if (type === 'text') return null
    if (type === 'json_object' || type === 'json_schema' || type === 'structural_tag') {
      throw fieldUnsupported(path, NO_STRUCTURED_OUTPUT)
    }
    throw fieldInvalid(`${path}.type`, 'must be text')
  })
}

/** Several adapters, whose weighted sum the request runs on. */
function adaptersField(): Field<readonly AdapterShare[]> {
  const share = { name: required(string({ isEmptyAllowed: false })), weight: number(1) }
  const schema = { type: 'array', maxItems: MAX_ADAPTERS, items: tableSchema(share) }
  return custom<readonly AdapterShare[]>(schema, [], (value, path) => {
    if (!Array.isArray(value)) throw fieldInvalid(path, 'must be a list of objects with a name and a weight')
    if (value.length > MAX_ADAPTERS) throw fieldInvalid(path, `must have at most ${MAX_ADAPTERS} entries`)
    const shares = value.map((entry: unknown, i) => {
      if (!isJsonObject(entry)) throw fieldInvalid(`${path}[${i}]`, 'must be an object with a name and a weight')
      return readFields(share, entry, `${path}[${i}].`)
    })
    const twice = shares.find(({ name }, i) => shares.findIndex((other) => other.name === name) < i)
    if (twice !== undefined) throw fieldInvalid(path, `names ${twice.name} twice`)
    return shares
  })
}
