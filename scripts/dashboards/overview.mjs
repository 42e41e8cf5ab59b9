// Overview: is the service well, how fast, how full.

import { bars, dashboard, heatmap, lines, stat } from './panel.mjs'
import { mean, own, quantile, rate, served, spread, top } from './queries.mjs'
import { instanceVariable, modelVariable } from './variables.mjs'

// Time to a first token that people call immediate, and that they stop waiting for.
const TTFT_SCALE_S = [['green'], ['orange', 1], ['red', 5]]
// 25 and 10 tokens a second: faster and slower than people read.
const ITL_SCALE_S = [['green'], ['orange', 0.04], ['red', 0.1]]
// Preemption begins when blocks run out; queues grow a little before.
const KV_SCALE = [['green'], ['orange', 0.8], ['red', 0.95]]
const ERROR_SCALE = [['green'], ['orange', 0.001], ['red', 0.01]]

const errorRatio = `sum(${rate(served('vllm:request_success_total', 'finished_reason="error"'))}) / (sum(${rate(served('vllm:request_success_total'))}) > 0)`

const now = [
  stat({
    title: 'Requests/s',
    description: 'Sequences that ended, for whatever reason. `vllm:request_success_total`',
    unit: 'reqps',
    queries: [[`sum(${rate(served('vllm:request_success_total'))})`]],
  }),
  stat({
    title: 'Output tokens/s',
    description: 'Tokens generated. `vllm:generation_tokens_total`',
    unit: 'short',
    queries: [[`sum(${rate(served('vllm:generation_tokens_total'))})`]],
  }),
  stat({
    title: 'TTFT p95',
    description: 'Arrival to first token: queue, adapter load, prefill. `vllm:time_to_first_token_seconds`',
    unit: 's',
    scale: TTFT_SCALE_S,
    queries: [[quantile(0.95, served('vllm:time_to_first_token_seconds_bucket'))]],
  }),
  stat({
    title: 'ITL p95',
    description: 'Gap between tokens of a stream; buckets below 10 ms are one. `vllm:inter_token_latency_seconds`',
    unit: 's',
    scale: ITL_SCALE_S,
    queries: [[quantile(0.95, served('vllm:inter_token_latency_seconds_bucket'))]],
  }),
  stat({
    title: 'Errors',
    description: 'Share of sequences that ended in an error of the server. `vllm:request_success_total`',
    unit: 'percentunit',
    scale: ERROR_SCALE,
    queries: [[errorRatio]],
  }),
  stat({
    title: 'Waiting',
    description: 'Requests in the queue of all replicas. `vllm:num_requests_waiting`',
    unit: 'short',
    scale: [['green'], ['orange', 16], ['red', 128]],
    queries: [[`sum(${served('vllm:num_requests_waiting')})`]],
  }),
  stat({
    title: 'KV cache, fullest',
    description: 'Used share of KV blocks on the fullest replica. `vllm:kv_cache_usage_perc`',
    unit: 'percentunit',
    scale: KV_SCALE,
    queries: [[`max(${served('vllm:kv_cache_usage_perc')})`]],
  }),
  stat({
    title: 'Replicas',
    description: 'Servers that report. One that cannot be scraped raises the alert LorikeetDown.',
    unit: 'short',
    queries: [[`count(${served('vllm:num_requests_running')})`]],
  }),
]

const latency = [
  lines({
    title: 'Time to first token',
    description: 'From arrival, before the text is tokenized, to the first token.',
    unit: 's',
    width: 6,
    queries: spread(served, 'vllm:time_to_first_token_seconds'),
  }),
  lines({
    title: 'Inter-token latency',
    description: 'Every gap between tokens of one sequence. The first bucket ends at 10 ms.',
    unit: 's',
    width: 6,
    queries: spread(served, 'vllm:inter_token_latency_seconds'),
  }),
  lines({
    title: 'End to end',
    description: 'From arrival to the last token.',
    unit: 's',
    width: 6,
    queries: spread(served, 'vllm:e2e_request_latency_seconds'),
  }),
  lines({
    title: 'Where the time goes (mean)',
    description: 'Mean seconds a request spends in the queue, in prefill and in decode.',
    unit: 's',
    width: 6,
    stack: true,
    queries: [
      [mean(served, 'vllm:request_queue_time_seconds'), 'queue'],
      [mean(served, 'vllm:request_prefill_time_seconds'), 'prefill'],
      [mean(served, 'vllm:request_decode_time_seconds'), 'decode'],
    ],
  }),
]

const traffic = [
  lines({
    title: 'Tokens/s',
    description: 'Prompt tokens count when their prompt is done, cached ones included.',
    unit: 'short',
    queries: [
      [`sum(${rate(served('vllm:prompt_tokens_total'))})`, 'prompt'],
      [`sum(${rate(served('vllm:generation_tokens_total'))})`, 'generated'],
    ],
  }),
  lines({
    title: 'Requests/s by end',
    description: 'stop: end of text or a stop string; length: token limit; abort: the client left; error: our fault.',
    unit: 'reqps',
    stack: true,
    queries: [[`sum by (finished_reason) (${rate(served('vllm:request_success_total'))})`, '{{finished_reason}}']],
  }),
  lines({
    title: 'HTTP answers/s by status',
    description: 'API routes; probes and scrapes are not counted.',
    unit: 'reqps',
    stack: true,
    queries: [[`sum by (status) (${rate(own('http_requests_total'))})`, '{{status}}']],
  }),
  lines({
    title: 'Refused/s',
    description: 'Calls refused before they ran: queue full, draining, engine down, wrong key.',
    unit: 'reqps',
    stack: true,
    queries: [[`sum by (reason) (${rate(own('lorikeet_rejected_total'))})`, '{{reason}}']],
  }),
  heatmap({
    title: 'Prompt tokens',
    description: 'How long prompts are.',
    unit: 'short',
    queries: [[`sum by (le) (increase(${served('vllm:request_prompt_tokens_bucket')}[$__rate_interval]))`]],
  }),
  heatmap({
    title: 'Output tokens',
    description: 'How long answers are.',
    unit: 'short',
    queries: [[`sum by (le) (increase(${served('vllm:request_generation_tokens_bucket')}[$__rate_interval]))`]],
  }),
]

const saturation = [
  lines({
    title: 'Running by replica',
    description: 'Requests in the running batch; --max-num-seqs is the most.',
    unit: 'short',
    queries: [[`sum by (instance) (${served('vllm:num_requests_running')})`, '{{instance}}']],
  }),
  lines({
    title: 'Waiting by cause',
    description: 'capacity: no KV block or no place in the batch; deferred: the adapter is not on the device yet.',
    unit: 'short',
    stack: true,
    queries: [[`sum by (reason) (${served('vllm:num_requests_waiting_by_reason')})`, '{{reason}}']],
  }),
  lines({
    title: 'KV cache by replica',
    description: 'Used share of KV blocks; blocks kept only for prefix reuse are not used ones.',
    unit: 'percentunit',
    max: 1,
    scale: KV_SCALE,
    queries: [[`max by (instance) (${served('vllm:kv_cache_usage_perc')})`, '{{instance}}']],
  }),
  lines({
    title: 'Prefix cache',
    description: 'Share of prompt tokens looked up that were found.',
    unit: 'percentunit',
    max: 1,
    queries: [
      [
        `sum(${rate(served('vllm:prefix_cache_hits_total'))}) / (sum(${rate(served('vllm:prefix_cache_queries_total'))}) > 0)`,
        'found',
      ],
    ],
  }),
  lines({
    title: 'Preemptions/s',
    description: 'Requests put back to be computed again because blocks ran out. Anything but zero for long: more KV cache.',
    unit: 'short',
    queries: [[`sum by (instance) (${rate(served('vllm:num_preemptions_total'))})`, '{{instance}}']],
  }),
  lines({
    title: 'Event loop lag p99',
    description: 'How late the thread that speaks to clients is. Above 100 ms streams stutter.',
    unit: 's',
    scale: [['green'], ['red', 0.1]],
    queries: [[`max by (instance) (${own('nodejs_eventloop_lag_p99_seconds')})`, '{{instance}}']],
  }),
]

const adapters = [
  bars({
    title: 'Adapter memory',
    description: 'Weights of adapters against their budget, fullest replica.',
    unit: 'percentunit',
    scale: [['green'], ['orange', 0.8], ['red', 0.98]],
    width: 8,
    height: 8,
    queries: [
      [`max by (tier) (${own('lorikeet_adapter_memory_bytes')} / ${own('lorikeet_adapter_memory_limit_bytes')})`, '{{tier}}'],
    ],
  }),
  lines({
    title: 'Busiest adapters',
    description: 'Tokens of sequences that ended. `_base` is the base model, `_other` all beyond --metrics-max-adapters.',
    unit: 'short',
    width: 16,
    queries: [[top(`sum by (adapter) (${rate(own('lorikeet_adapter_tokens_total'))})`), '{{adapter}}']],
  }),
]

export const overview = dashboard({
  uid: 'lorikeet-overview',
  title: 'Lorikeet: overview',
  description: 'Traffic, latency and saturation of all replicas.',
  variables: [modelVariable, instanceVariable],
  rows: [
    ['Now', now],
    ['Latency', latency],
    ['Traffic', traffic],
    ['Saturation', saturation],
    ['Adapters', adapters],
  ],
})
