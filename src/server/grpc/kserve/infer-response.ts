// What choices have to say, as the output tensors of Triton's vLLM backend.

import type { TokenLogprobs } from '../../../engine/messages.ts'
import type { Choice } from '../../generation/choice.ts'
import type { Generation } from '../../generation/generation.ts'
import type { TokenNames } from '../../generation/token-names.ts'
import type { ModelInferResponse } from '../generated/inference/grpc_service.ts'
import { type InferCall, MODEL_VERSION } from './infer-request.ts'
import { encodeOutputs, type OutputTensor } from './tensors.ts'

// As Python prints None: choices that go on.
const UNFINISHED = 'None'

/** Builds the responses of one request; a logprob sum runs through all of them. */
export class InferResponses {
  readonly #call: InferCall
  readonly #cumulative: number[]

  constructor(call: InferCall, numChoices: number) {
    this.#call = call
    this.#cumulative = Array.from({ length: numChoices }, () => 0)
  }

  /** Takes what the choices have, one element each. `isFinal` marks the last response of a request. */
  take(generation: Generation, isFinal: boolean): ModelInferResponse {
    const { extras, prefix, result, hasLogprobs, inferRequest, isRaw } = this.#call
    const deltas = generation.choices.map((choice) => choice.take())
    const entries = deltas.map((delta) => delta.logprobs)
    entries.forEach((logprobs, index) => {
      for (const { logprob } of logprobs) this.#cumulative[index] = (this.#cumulative[index] as number) + logprob
    })
    const texts: Record<string, readonly string[]> = {
      text_output: deltas.map((delta) => prefix + delta.text),
      finish_reason: generation.choices.map(finishReason),
      logprobs: entries.map((logprobs) => (hasLogprobs ? logprobsJson(logprobs, result.numTop ?? 0, result.names) : 'null')),
    }
    const numbers: Record<string, readonly number[]> = {
      cumulative_logprob: this.#cumulative,
      num_input_tokens: [generation.usage.numPromptTokens],
      num_output_tokens: deltas.map((delta) => delta.tokenIds.length),
    }
    const tensors = OUTPUTS.filter(({ name }) => name === 'text_output' || extras.has(name)).map(({ name, datatype }) =>
      datatype === 'BYTES'
        ? ({ name, datatype, values: texts[name] ?? [] } satisfies OutputTensor)
        : ({ name, datatype, values: numbers[name] ?? [] } satisfies OutputTensor),
    )
    const wanted = inferRequest.outputs.map(({ name }) => name)
    const shown = wanted.length === 0 ? tensors : tensors.filter(({ name }) => wanted.includes(name))
    return this.#response(shown, isRaw, isFinal)
  }

  /** Without data, after the last response that has some. */
  emptyFinal(): ModelInferResponse {
    return this.#response([], false, true)
  }

  #response(tensors: readonly OutputTensor[], isRaw: boolean, isFinal: boolean): ModelInferResponse {
    const { modelName, id } = this.#call.inferRequest
    return {
      modelName,
      modelVersion: MODEL_VERSION,
      id,
      parameters: { triton_final_response: { parameterChoice: { $case: 'boolParam', boolParam: isFinal } } },
      ...encodeOutputs(tensors, isRaw),
    }
  }
}

/** In the order in which they are sent. */
export const OUTPUTS = [
  { name: 'text_output', datatype: 'BYTES' },
  { name: 'finish_reason', datatype: 'BYTES' },
  { name: 'cumulative_logprob', datatype: 'FP32' },
  { name: 'logprobs', datatype: 'BYTES' },
  { name: 'num_input_tokens', datatype: 'UINT32' },
  { name: 'num_output_tokens', datatype: 'UINT32' },
] as const

function finishReason({ finish }: Choice): string {
  return finish?.reason ?? UNFINISHED
}

/** A list with an object a token: token id to logprob, rank and text. */
function logprobsJson(entries: readonly TokenLogprobs[], numTop: number, names: TokenNames): string {
  return JSON.stringify(
    entries.map((entry) => {
      const byId: Record<string, unknown> = {}
      const count = numTop < 0 ? entry.topTokenIds.length : Math.min(numTop, entry.topTokenIds.length)
      for (let i = 0; i < count; i++) {
        const tokenId = entry.topTokenIds[i] as number
        byId[tokenId] = { logprob: entry.topLogprobs[i], rank: i + 1, decoded_token: names.name(tokenId) }
      }
      const { tokenId, logprob, rank } = entry
      byId[tokenId] ??= { logprob, rank, decoded_token: names.name(tokenId) }
      return byId
    }),
  )
}
