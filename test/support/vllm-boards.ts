// What the example Grafana boards of vLLM ask for, as facts: families, labels they filter and group by, and the forms of their queries.
// Read from vllm-project/vllm, examples/observability: prometheus_grafana/grafana.json and
// dashboards/grafana/{performance_statistics,query_statistics}.json.

/** Latencies shown as quantiles and means, by both performance boards. */
const LATENCIES = ['vllm:e2e_request_latency_seconds', 'vllm:inter_token_latency_seconds', 'vllm:time_to_first_token_seconds']

/** Counters, and sums and counts of histograms, shown as rates for one model. */
const RATES = [
  'vllm:prompt_tokens_total',
  'vllm:generation_tokens_total',
  'vllm:request_queue_time_seconds_sum',
  'vllm:request_prefill_time_seconds_sum',
  'vllm:request_decode_time_seconds_sum',
  'vllm:request_max_num_generation_tokens_sum',
]

const GAUGES = ['vllm:num_requests_running', 'vllm:num_requests_waiting', 'vllm:kv_cache_usage_perc']

/** Where drop-down lists of models come from. */
export const VLLM_MODEL_VARIABLES = ['vllm:generation_tokens_total', 'vllm:request_success_total']

const meanOf = (family: string, filter: string, window: string): string =>
  `rate(${family}_sum${filter}[${window}]) / rate(${family}_count${filter}[${window}])`

const quantileOf = (q: string, family: string, filter: string, window: string, by = 'le'): string =>
  `histogram_quantile(${q}, sum by (${by}) (rate(${family}_bucket${filter}[${window}])))`

/** grafana.json: everything is filtered by one model's name. */
function mainBoard(modelName: string, rate: string): readonly string[] {
  const filter = `{model_name="${modelName}"}`
  return [
    ...LATENCIES.flatMap((family) => ['0.5', '0.9', '0.95', '0.99'].map((q) => quantileOf(q, family, filter, rate))),
    ...LATENCIES.map((family) => meanOf(family, filter, rate)),
    ...RATES.map((name) => `rate(${name}${filter}[${rate}])`),
    ...GAUGES.map((name) => `${name}${filter}`),
    ...['prompt', 'generation'].map((kind) => `sum by (le) (increase(vllm:request_${kind}_tokens_bucket${filter}[${rate}]))`),
    `sum by (finished_reason) (increase(vllm:request_success_total${filter}[${rate}]))`,
  ]
}

/** performance_statistics.json: no filter; the range of the board beside the rate window. */
function performanceBoard(rate: string, range: string): readonly string[] {
  return [
    ...LATENCIES.flatMap((family) => ['0.50', '0.90', '0.99'].map((q) => quantileOf(q, family, '', range))),
    ...LATENCIES.map((family) => meanOf(family, '', rate)),
    ...LATENCIES.map((family) => `sum(increase(${family}_sum[${range}])) / sum(increase(${family}_count[${range}]))`),
    ...['0.50', '0.90', '0.99'].map((q) => quantileOf(q, 'vllm:inter_token_latency_seconds', '', rate)),
    ...['vllm:generation_tokens_total', 'vllm:prompt_tokens_total', 'vllm:iteration_tokens_total_count'].map(
      (name) => `rate(${name}[${rate}])`,
    ),
  ]
}

/** query_statistics.json: several models at once, grouped by model_name. */
function queryBoard(modelName: string, rate: string): readonly string[] {
  const filter = `{model_name=~"${modelName}"}`
  const finished = `sum(rate(vllm:request_success_total${filter}[${rate}]))`
  return [
    ...['vllm:request_success_total', 'vllm:prompt_tokens_total', 'vllm:generation_tokens_total'].flatMap((name) => [
      `sum by (model_name) (rate(${name}${filter}[${rate}]))`,
      `sum(rate(${name}${filter}[${rate}]))`,
    ]),
    ...['vllm:e2e_request_latency_seconds', 'vllm:request_prompt_tokens'].flatMap((family) =>
      ['0.50', '0.90', '0.99'].map((q) => quantileOf(q, family, filter, rate, 'le, model_name')),
    ),
    `sum by (le, model_name) (rate(vllm:request_prompt_tokens_bucket${filter}[${rate}]))`,
    `sum(rate(vllm:prompt_tokens_total${filter}[${rate}])) / ${finished}`,
  ]
}

/** Every query of the three boards for a model, without repeats. */
export function vllmBoardQueries(modelName: string, rate: string, range: string): readonly string[] {
  return [...new Set([...mainBoard(modelName, rate), ...performanceBoard(rate, range), ...queryBoard(modelName, rate)])]
}
