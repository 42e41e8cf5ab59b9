// The body of LoRAX's /generate and /generate_stream, which is Text Generation Inference's with adapters.

import { isJsonObject } from '../../core/json.ts'
import { ADAPTER_SOURCES, type AdapterShare } from '../generation/model-resolver.ts'
import {
  boolean,
  custom,
  fieldInvalid,
  fieldUnsupported,
  ignored,
  integer,
  list,
  number,
  oneOf,
  readFields,
  record,
  required,
  string,
  tableSchema,
  unsupported,
} from './fields.ts'
import { MAX_ADAPTERS, SAMPLING_FIELDS } from './sampling-fields.ts'

// Both are the defaults of LoRAX's launcher.
export const MAX_BEST_OF = 2
export const MAX_STOPS = 4

const isFalse = (value: unknown): boolean => value === false
const POSITIVE = { min: 0, isMinExclusive: true }
const PENALTY = { min: -2, max: 2 }

export const LORAX_PARAMETERS = {
  adapter_id: string(),
  adapter_source: oneOf(ADAPTER_SOURCES),
  merged_adapters: mergedAdaptersField(),
  // There is no hub that a token would open.
  api_token: ignored(),
  max_new_tokens: integer(null, { min: 1 }),
  do_sample: boolean(false),
  // LoRAX says over 0 and accepts 0.
  temperature: number(null, { min: 0 }),
  repetition_penalty: number(null, POSITIVE),
  frequency_penalty: number(0, PENALTY),
  presence_penalty: number(0, PENALTY),
  top_k: integer(null, { min: 1 }),
  top_p: number(null, { ...POSITIVE, max: 1 }),
  typical_p: unsupported('locally typical sampling is not built; use top_p or top_k', (value) => value === 1),
  seed: integer(null, { min: 0 }),
  stop: list(string({ isEmptyAllowed: false }), { maxItems: MAX_STOPS }),
  truncate: integer(null, { min: 1 }),
  best_of: integer(1, { min: 1, max: MAX_BEST_OF }),
  return_full_text: boolean(false),
  details: boolean(false),
  decoder_input_details: boolean(false),
  return_k_alternatives: integer(null, { min: 1 }),
  // Text Generation Inference's own word for nearly the same.
  top_n_tokens: integer(0, { min: 0 }),
  ignore_eos_token: boolean(false),
  watermark: unsupported('outputs are not watermarked', isFalse),
  apply_chat_template: boolean(false),
  response_format: responseFormatField(),
  grammar: unsupported('use response_format'),
}

export const LORAX_FIELDS = {
  inputs: required(string({ isEmptyAllowed: false })),
  parameters: record(LORAX_PARAMETERS),
  // Of Hugging Face's hosted service: caching and waiting for models.
  options: ignored(),
}

/** POST / answers either way. */
export const LORAX_COMPATIBLE_FIELDS = { ...LORAX_FIELDS, stream: boolean(false) }

/** LoRAX writes the schema beside the type; OpenAI's form of the same is what the server reads. */
function responseFormatField() {
  const { schema, fallback, read } = SAMPLING_FIELDS.response_format
  return custom(schema, fallback, (value, path) => {
    const isLorax = isJsonObject(value) && value['type'] === 'json_object' && isJsonObject(value['schema'])
    return read(isLorax ? { type: 'json_schema', json_schema: { name: 'lorax', schema: value['schema'] } } : value, path)
  })
}

/** Summed live: LoRAX's other strategies merge weights by rules that no sum of outputs follows. */
function mergedAdaptersField() {
  const table = {
    ids: list(string({ isEmptyAllowed: false }), { minItems: 1, maxItems: MAX_ADAPTERS }),
    weights: list(number(null), { maxItems: MAX_ADAPTERS }),
    merge_strategy: oneOf(['linear', 'ties', 'dare_linear', 'dare_ties']),
    density: unsupported('it belongs to strategies other than linear'),
    majority_sign_method: unsupported('it belongs to strategies other than linear'),
  }
  return custom<readonly AdapterShare[] | null>(tableSchema(table), null, (value, path) => {
    if (!isJsonObject(value)) throw fieldInvalid(path, 'must be an object of ids and weights')
    const { ids, weights, merge_strategy: strategy } = readFields(table, value, `${path}.`)
    if (strategy !== null && strategy !== 'linear')
      throw fieldUnsupported(`${path}.merge_strategy`, 'linear is, which sums the adapters')
    if (ids.length === 0) throw fieldInvalid(`${path}.ids`, 'must name an adapter')
    if (weights.length !== ids.length) throw fieldInvalid(`${path}.weights`, `must be ${ids.length}, one an id`)
    return ids.map((name, i) => ({ name, weight: weights[i] ?? 0 }))
  })
}
