// One observation a sequence when it ends, and one a prompt where vLLM counts its samples together.

import { LATENCY_BOUNDS_S, SAMPLE_COUNT_BOUNDS, TOKEN_GAP_BOUNDS_S, TTFT_BOUNDS_S, tokenCountBounds } from './buckets.ts'
import type { MetricsRegistry } from './metrics-registry.ts'
import { FINISH_REASONS, type FinishReason, type PromptRecord, type SequenceRecord } from './records.ts'
import type { Distribution, Tally } from './text-family.ts'

export class RequestFamilies {
  readonly #success: Readonly<Record<FinishReason, Tally>>
  readonly #ttft: Distribution
  readonly #timePerOutputToken: Distribution
  readonly #e2e: Distribution
  readonly #queueTime: Distribution
  readonly #prefillTime: Distribution
  readonly #decodeTime: Distribution
  readonly #inferenceTime: Distribution
  readonly #promptTokens: Distribution
  readonly #generationTokens: Distribution
  readonly #maxNumGenerationTokens: Distribution
  readonly #paramsMaxTokens: Distribution
  readonly #prefillKvComputedTokens: Distribution
  readonly #paramsN: Distribution

  constructor(registry: MetricsRegistry, labels: Readonly<Record<string, string>>, maxModelLen: number) {
    const names = Object.keys(labels)
    const success = registry.tally(
      'vllm:request_success_total',
      'counter',
      'Sequences that ended, by reason: stop, length, abort, error; repetition is always 0.',
      [...names, 'finished_reason'],
    )
    this.#success = Object.fromEntries(
      FINISH_REASONS.map((reason) => [reason, success.series({ ...labels, finished_reason: reason })]),
    ) as Record<FinishReason, Tally>
    const distribution = (name: string, help: string, bounds: readonly number[]) =>
      registry.distribution(`vllm:${name}`, help, names, bounds).series(labels)
    const counts = tokenCountBounds(maxModelLen)
    this.#ttft = distribution('time_to_first_token_seconds', 'Arrival to first token.', TTFT_BOUNDS_S)
    this.#timePerOutputToken = distribution(
      'request_time_per_output_token_seconds',
      'Mean time of the tokens after the first, by sequence.',
      TOKEN_GAP_BOUNDS_S,
    )
    this.#e2e = distribution('e2e_request_latency_seconds', 'Arrival to end.', LATENCY_BOUNDS_S)
    this.#queueTime = distribution('request_queue_time_seconds', 'Arrival to first step.', LATENCY_BOUNDS_S)
    this.#prefillTime = distribution('request_prefill_time_seconds', 'First step to first token.', LATENCY_BOUNDS_S)
    this.#decodeTime = distribution('request_decode_time_seconds', 'First to last token.', LATENCY_BOUNDS_S)
    this.#inferenceTime = distribution('request_inference_time_seconds', 'First step to last token.', LATENCY_BOUNDS_S)
    this.#promptTokens = distribution('request_prompt_tokens', 'Prompt tokens.', counts)
    this.#generationTokens = distribution('request_generation_tokens', 'Output tokens.', counts)
    this.#maxNumGenerationTokens = distribution(
      'request_max_num_generation_tokens',
      'Output tokens of the longest sample of a prompt.',
      counts,
    )
    this.#paramsMaxTokens = distribution('request_params_max_tokens', 'Limit on output tokens.', counts)
    this.#prefillKvComputedTokens = distribution(
      'request_prefill_kv_computed_tokens',
      'Prompt tokens that were not in the prefix cache.',
      counts,
    )
    this.#paramsN = distribution('request_params_n', 'Samples of a prompt.', SAMPLE_COUNT_BOUNDS)
  }

  observe({ sequences }: PromptRecord): void {
    if (sequences.length === 0) return
    for (const sequence of sequences) this.#observeSequence(sequence)
    this.#paramsN.observe(sequences.length)
    this.#maxNumGenerationTokens.observe(Math.max(...sequences.map(({ times }) => times.numOutputTokens)))
  }

  #observeSequence({ reason, times, maxTokens }: SequenceRecord): void {
    const { arrivedAtMs, firstScheduledAtMs, firstTokenAtMs, lastTokenAtMs, finishedAtMs } = times
    this.#success[reason].add(1)
    this.#e2e.observe(seconds(arrivedAtMs, finishedAtMs))
    this.#promptTokens.observe(times.numPromptTokens)
    this.#generationTokens.observe(times.numOutputTokens)
    this.#paramsMaxTokens.observe(maxTokens)
    if (firstScheduledAtMs === null) return
    this.#queueTime.observe(seconds(arrivedAtMs, firstScheduledAtMs))
    if (firstTokenAtMs === null || lastTokenAtMs === null) return
    this.#ttft.observe(seconds(arrivedAtMs, firstTokenAtMs))
    this.#prefillTime.observe(seconds(firstScheduledAtMs, firstTokenAtMs))
    this.#decodeTime.observe(seconds(firstTokenAtMs, lastTokenAtMs))
    this.#inferenceTime.observe(seconds(firstScheduledAtMs, lastTokenAtMs))
    this.#prefillKvComputedTokens.observe(times.numPromptTokens - times.numCachedTokens)
    const numLaterTokens = times.numOutputTokens - 1
    if (numLaterTokens > 0) this.#timePerOutputToken.observe(seconds(firstTokenAtMs, lastTokenAtMs) / numLaterTokens)
  }
}

/** Clocks of two threads may disagree by microseconds. */
function seconds(fromMs: number, toMs: number): number {
  return Math.max(0, toMs - fromMs) / 1000
}
