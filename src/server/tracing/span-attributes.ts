// What a span says of a request: vLLM's attribute names, and those of the GenAI semantic conventions where they differ by now.
// Neither prompts nor outputs are in it.

import type { Generation } from '../generation/generation.ts'

export type SpanAttributes = Readonly<Record<string, string | number | string[]>>

/** Known when the call begins. */
export function requestAttributes({ request }: Pick<Generation, 'request'>): SpanAttributes {
  const [sampling] = request.sampling
  return {
    'gen_ai.request.id': request.responseId,
    'gen_ai.request.model': request.modelName,
    'gen_ai.request.n': request.numSamples,
    ...(sampling === undefined
      ? {}
      : {
          'gen_ai.request.max_tokens': sampling.maxTokens,
          'gen_ai.request.temperature': sampling.temperature,
          'gen_ai.request.top_p': sampling.topP,
        }),
    'lorikeet.adapter': request.adapter?.name ?? '',
  }
}

/** Known when it has ended. Seconds. */
export function resultAttributes(generation: Generation): SpanAttributes {
  const { request, choices, usage } = generation
  const reasons = choices.map(({ finish, engineFinish }) => finish?.reason ?? engineFinish?.reason ?? 'error')
  return {
    'gen_ai.response.id': request.responseId,
    'gen_ai.response.model': request.modelName,
    'gen_ai.response.finish_reasons': reasons,
    'gen_ai.usage.prompt_tokens': usage.numPromptTokens,
    'gen_ai.usage.completion_tokens': usage.numOutputTokens,
    'gen_ai.usage.input_tokens': usage.numPromptTokens,
    'gen_ai.usage.output_tokens': usage.numOutputTokens,
    'gen_ai.usage.num_sequences': choices.length,
    'lorikeet.usage.cached_tokens': usage.numCachedTokens,
    ...latencies(generation),
  }
}

/** Of all sequences together: from the first one's to the last one's times. */
function latencies({ request, choices }: Generation): SpanAttributes {
  const metrics = choices.flatMap(({ engineFinish }) => (engineFinish === null ? [] : [engineFinish.metrics]))
  const { arrivedAtMs } = request
  const scheduledAtMs = first(metrics.map((one) => one.firstScheduledAtMs))
  const firstTokenAtMs = first(metrics.map((one) => one.firstTokenAtMs))
  const lastTokenAtMs = last(metrics.map((one) => one.lastTokenAtMs))
  const adapterWaitMs = last(metrics.map((one) => one.adapterWaitMs))
  return {
    ...latency('gen_ai.latency.e2e', arrivedAtMs, last(metrics.map((one) => one.finishedAtMs))),
    ...latency('gen_ai.latency.time_in_queue', arrivedAtMs, scheduledAtMs),
    ...latency('gen_ai.latency.time_to_first_token', arrivedAtMs, firstTokenAtMs),
    ...latency('gen_ai.latency.time_in_model_prefill', scheduledAtMs, firstTokenAtMs),
    ...latency('gen_ai.latency.time_in_model_decode', firstTokenAtMs, lastTokenAtMs),
    ...latency('gen_ai.latency.time_in_model_inference', scheduledAtMs, lastTokenAtMs),
    ...latency('lorikeet.latency.time_waiting_for_adapter', 0, adapterWaitMs),
  }
}

/** Nothing where the request did not come to that. */
function latency(name: string, fromMs: number | null, toMs: number | null): SpanAttributes {
  return fromMs === null || toMs === null ? {} : { [name]: Math.max(0, toMs - fromMs) / 1000 }
}

function first(times: readonly (number | null)[]): number | null {
  const known = times.filter((time) => time !== null)
  return known.length === 0 ? null : Math.min(...known)
}

function last(times: readonly (number | null)[]): number | null {
  const known = times.filter((time) => time !== null)
  return known.length === 0 ? null : Math.max(...known)
}
