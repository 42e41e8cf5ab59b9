// Engine internals: where a step spends its time, what the KV cache does, how the process is.

import { dashboard, heatmap, lines, stat, table } from './panel.mjs'
import { mean, own, quantile, rate, served, spread } from './queries.mjs'
import { instanceVariable, modelVariable } from './variables.mjs'

const stepTime = (phase) => rate(own('lorikeet_step_seconds_sum', ...(phase ? [`phase="${phase}"`] : [])))

const now = [
  stat({
    title: 'Steps/s',
    description: 'Forward passes of all replicas.',
    unit: 'short',
    queries: [[`sum(${rate(own('lorikeet_step_seconds_count', 'phase="execute"'))})`]],
  }),
  stat({
    title: 'Tokens a step',
    description: 'Prompt and generated tokens of a step, mean; --max-num-batched-tokens is the most.',
    unit: 'short',
    decimals: 1,
    queries: [[mean(served, 'vllm:iteration_tokens_total')]],
  }),
  stat({
    title: 'Step, mean',
    description: 'All phases of a step.',
    unit: 's',
    queries: [[`sum(${stepTime()}) / (sum(${rate(own('lorikeet_step_seconds_count', 'phase="execute"'))}) > 0)`]],
  }),
  stat({
    title: 'Engine busy',
    description: 'Share of time in a step, busiest replica. Near 100 % the queue grows.',
    unit: 'percentunit',
    scale: [['green'], ['orange', 0.8], ['red', 0.97]],
    queries: [[`max(sum by (instance) (${stepTime()}))`]],
  }),
  stat({
    title: 'Outside native code',
    description: 'Share of step time that is not inside the native library of the backend: the cost of the engine itself.',
    unit: 'percentunit',
    scale: [['green'], ['orange', 0.1], ['red', 0.25]],
    queries: [[`1 - sum(${rate(own('lorikeet_step_native_seconds_total'))}) / (sum(${stepTime()}) > 0)`]],
  }),
  stat({
    title: 'KV blocks used',
    description: 'Fullest replica.',
    unit: 'percentunit',
    scale: [['green'], ['orange', 0.8], ['red', 0.95]],
    queries: [[`max(${served('vllm:kv_cache_usage_perc')})`]],
  }),
  stat({
    title: 'Preemptions',
    description: 'In the time shown.',
    unit: 'short',
    decimals: 0,
    scale: [['green'], ['orange', 1]],
    queries: [[`sum(increase(${served('vllm:num_preemptions_total')}[$__range]))`]],
  }),
  stat({
    title: 'Awake',
    description: '1 while the engines run.',
    unit: 'short',
    queries: [[`min(${served('vllm:engine_sleep_state', 'sleep_state="awake"')})`]],
  }),
]

const steps = [
  lines({
    title: 'Step time by phase',
    description: 'Seconds a second in each phase of the step, all replicas.',
    unit: 's',
    stack: true,
    queries: [[`sum by (phase) (${stepTime()})`, '{{phase}}']],
  }),
  lines({
    title: 'Phase p99',
    description: '99th percentile of one phase of one step.',
    unit: 's',
    queries: [[quantile(0.99, own('lorikeet_step_seconds_bucket'), ['phase']), '{{phase}}']],
  }),
  lines({
    title: 'Execute: native and not',
    description: 'Seconds a second inside the native library, and the rest of the execute phase.',
    unit: 's',
    stack: true,
    queries: [
      [`sum(${rate(own('lorikeet_step_native_seconds_total'))})`, 'native'],
      [`sum(${stepTime('execute')}) - sum(${rate(own('lorikeet_step_native_seconds_total'))})`, 'not native'],
    ],
  }),
  heatmap({
    title: 'Tokens a step',
    description: 'Small steps are decode, large ones carry prompt chunks.',
    unit: 'short',
    queries: [[`sum by (le) (increase(${served('vllm:iteration_tokens_total_bucket')}[$__rate_interval]))`]],
  }),
  heatmap({
    title: 'Distinct adapters a step',
    description: 'How mixed batches are.',
    unit: 'short',
    queries: [[`sum by (le) (increase(${own('lorikeet_batch_adapters_bucket')}[$__rate_interval]))`]],
  }),
  lines({
    title: 'Running and waiting',
    description: 'Requests of all replicas.',
    unit: 'short',
    queries: [
      [`sum(${served('vllm:num_requests_running')})`, 'running'],
      [`sum(${served('vllm:num_requests_waiting')})`, 'waiting'],
    ],
  }),
]

const cache = [
  lines({
    title: 'Prompt tokens/s by source',
    description: 'local_cache_hit: taken from the prefix cache; local_compute: computed.',
    unit: 'short',
    stack: true,
    queries: [[`sum by (source) (${rate(served('vllm:prompt_tokens_by_source_total'))})`, '{{source}}']],
  }),
  lines({
    title: 'Prefix cache, tokens/s',
    description: 'Tokens looked up and found.',
    unit: 'short',
    queries: [
      [`sum(${rate(served('vllm:prefix_cache_queries_total'))})`, 'looked up'],
      [`sum(${rate(served('vllm:prefix_cache_hits_total'))})`, 'found'],
    ],
  }),
  lines({
    title: 'Prompt tokens computed a request',
    description: 'What prefix caching left to compute.',
    unit: 'short',
    queries: spread(served, 'vllm:request_prefill_kv_computed_tokens'),
  }),
  lines({
    title: 'Queue time',
    description: 'Queued to first scheduled.',
    unit: 's',
    queries: spread(served, 'vllm:request_queue_time_seconds'),
  }),
  lines({
    title: 'Prefill time',
    description: 'First scheduled to first token.',
    unit: 's',
    queries: spread(served, 'vllm:request_prefill_time_seconds'),
  }),
  lines({
    title: 'Decode time',
    description: 'First to last token.',
    unit: 's',
    queries: spread(served, 'vllm:request_decode_time_seconds'),
  }),
]

const http = [
  lines({
    title: 'HTTP requests/s by route',
    description: 'Route templates, not paths.',
    unit: 'reqps',
    stack: true,
    queries: [[`sum by (handler) (${rate(own('http_requests_total'))})`, '{{handler}}']],
  }),
  lines({
    title: 'HTTP duration p95 by route',
    description: 'To the last byte of the answer: streams last as long as they stream.',
    unit: 's',
    queries: [[quantile(0.95, own('http_request_duration_seconds_bucket'), ['handler']), '{{handler}}']],
  }),
  lines({
    title: 'HTTP bytes/s',
    description: 'Bodies received and sent.',
    unit: 'Bps',
    queries: [
      [`sum(${rate(own('http_request_size_bytes_sum'))})`, 'received'],
      [`sum(${rate(own('http_response_size_bytes_sum'))})`, 'sent'],
    ],
  }),
]

const processRow = [
  lines({
    title: 'CPU cores',
    description: 'All threads of the process, native ones included.',
    unit: 'short',
    queries: [[`sum by (instance) (${rate(own('process_cpu_seconds_total'))})`, '{{instance}}']],
  }),
  lines({
    title: 'Memory',
    description: 'Resident: model, KV cache, adapters. Heap: JavaScript of the main thread.',
    unit: 'bytes',
    queries: [
      [`sum by (instance) (${own('process_resident_memory_bytes')})`, '{{instance}} resident'],
      [`sum by (instance) (${own('nodejs_heap_size_used_bytes')})`, '{{instance}} heap'],
    ],
  }),
  lines({
    title: 'Event loop lag',
    description: 'Of the thread that speaks to clients; steps run on another.',
    unit: 's',
    scale: [['green'], ['red', 0.1]],
    queries: [
      [`max(${own('nodejs_eventloop_lag_p50_seconds')})`, 'p50'],
      [`max(${own('nodejs_eventloop_lag_p99_seconds')})`, 'p99'],
    ],
  }),
  lines({
    title: 'Garbage collection',
    description: 'Seconds a second by kind, main thread.',
    unit: 's',
    stack: true,
    queries: [[`sum by (kind) (${rate(own('nodejs_gc_duration_seconds_sum'))})`, '{{kind}}']],
  }),
  table({
    title: 'Versions and models',
    description: 'What each replica runs.',
    by: 'instance',
    columns: [],
    hidden: ['^job$', '^Value.*'],
    width: 16,
    queries: [[`${own('lorikeet_model_info')} * on (instance) group_left (version, revision) ${own('lorikeet_build_info')}`]],
  }),
]

export const engine = dashboard({
  uid: 'lorikeet-engine',
  title: 'Lorikeet: engine internals',
  description: 'Steps, KV cache, HTTP and process of each replica.',
  variables: [modelVariable, instanceVariable],
  rows: [
    ['Now', now],
    ['Steps', steps],
    ['Cache and phases', cache],
    ['HTTP', http],
    ['Process', processRow],
  ],
})
