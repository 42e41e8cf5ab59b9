// What vLLM's newer boards ask for, as facts: Overview, Instances, KV Cache and Service Status of examples/observability/dashboards/grafana
// in vllm-project/vllm. Each query is scoped by job, model_name and instance; those of Instances and KV Cache by engine too.

const TARGET = 'job=~".+", instance=~".+"'
const FLEET = `${TARGET}, model_name=~"base"`
const ENGINE = `${FLEET}, engine=~".+"`

const TTFT = 'vllm:time_to_first_token_seconds'
const ITL = 'vllm:inter_token_latency_seconds'
const TPOT = 'vllm:request_time_per_output_token_seconds'
const E2E = 'vllm:e2e_request_latency_seconds'
const QUEUE = 'vllm:request_queue_time_seconds'
const FINISHED = 'vllm:request_success_total'
const HITS = 'vllm:prefix_cache_hits_total'
const LOOKUPS = 'vllm:prefix_cache_queries_total'
const RUNNING = 'vllm:num_requests_running'
const WAITING_BY_REASON = 'vllm:num_requests_waiting_by_reason'
const KV_USAGE = 'vllm:kv_cache_usage_perc'
const STEP_TOKENS = 'vllm:iteration_tokens_total'

/** Asked for by rows about features that this server does not have: those panels stay empty. */
export const ABSENT_FAMILIES = [
  'vllm:mm_cache_queries_total',
  'vllm:external_prefix_cache_queries_total',
  'vllm:prompt_tokens_cached_by_source_total',
  'vllm:num_requests_kv_fetch_by_stage',
  'vllm:kv_block_lifetime_seconds_bucket',
  'vllm:nixl_xfer_time_seconds_bucket',
  'vllm:kv_offload_load_bytes_total',
  'vllm:simple_kv_offload_used_blocks',
  'vllm:sleep_mode_operation_duration_seconds_count',
  'vllm:estimated_flops_per_gpu_total',
  'vllm:spec_decode_num_drafts_total',
] as const

/** Every query of the four boards that is about what this server has. `window` is the rate interval, `range` the board's. */
export function vllmFleetQueries(window: string, range: string): readonly string[] {
  return [...new Set([...overview(window, range), ...instances(window), ...kvCache(window), ...serviceStatus(window)])]
}

const series = (scope: string, name: string, ...matchers: readonly string[]): string =>
  `${name}{${[scope, ...matchers].join(', ')}}`
const grouped = (operator: string, labels: string, vector: string): string =>
  `${operator}${labels === '' ? '' : ` by (${labels}) `}(${vector})`
const positive = (top: string, bottom: string): string => `${top} / (${bottom} > 0)`
const sumRate = (scope: string, window: string, name: string, labels = '', ...matchers: readonly string[]): string =>
  grouped('sum', labels, `rate(${series(scope, name, ...matchers)}[${window}])`)
const ratio = (scope: string, window: string, top: string, bottom: string, labels = ''): string =>
  positive(sumRate(scope, window, top, labels), sumRate(scope, window, bottom, labels))
const mean = (scope: string, window: string, family: string, labels = ''): string =>
  ratio(scope, window, `${family}_sum`, `${family}_count`, labels)
const quantile = (scope: string, window: string, q: number, family: string, labels = ''): string =>
  `histogram_quantile(${q}, ${sumRate(scope, window, `${family}_bucket`, labels === '' ? 'le' : `le, ${labels}`)})`
const spread = (scope: string, window: string, family: string): readonly string[] => [
  ...[0.5, 0.95, 0.99].map((q) => quantile(scope, window, q, family)),
  mean(scope, window, family),
]

/** Panels that two boards share. */
function shared(scope: string, window: string): readonly string[] {
  return [
    grouped('sum', '', series(scope, RUNNING)),
    ...['capacity', 'deferred'].map((reason) => grouped('sum', '', series(scope, WAITING_BY_REASON, `reason="${reason}"`))),
    ...['local_compute', 'local_cache_hit', 'external_kv_transfer'].map((source) =>
      sumRate(scope, window, 'vllm:prompt_tokens_by_source_total', '', `source="${source}"`),
    ),
    ...['max', 'avg', 'min'].map((operator) => grouped(operator, '', series(scope, KV_USAGE))),
    ratio(scope, window, HITS, LOOKUPS),
    sumRate(scope, window, 'vllm:num_preemptions_total'),
  ]
}

function overview(window: string, range: string): readonly string[] {
  const rate = (name: string, labels = '', ...matchers: readonly string[]): string =>
    sumRate(FLEET, window, name, labels, ...matchers)
  const tokens = ['vllm:prompt_tokens_total', 'vllm:generation_tokens_total']
  const failing = sumRate(TARGET, window, 'http_requests_total', '', 'status="5xx"')
  const byModel = 'model_name'
  const increase = (name: string): string => `increase(${series(FLEET, name)}[${range}])`
  return [
    ...shared(FLEET, window),
    ...[FINISHED, ...tokens].map((name) => rate(name)),
    ...tokens.map((name) => rate(name, byModel)),
    positive(`(${failing} or vector(0))`, sumRate(TARGET, window, 'http_requests_total')),
    'count(up{job=~".+"} == 0) or vector(0)',
    grouped('count', '', series(FLEET, RUNNING)),
    grouped('sum', '', series(FLEET, 'vllm:num_requests_waiting')),
    // Service levels: the bound is a bucket's text.
    positive(rate(`${TTFT}_bucket`, '', 'le="1.0"'), rate(`${TTFT}_count`)),
    positive(rate(`${TPOT}_bucket`, '', 'le="0.1"'), rate(`${TPOT}_count`)),
    `count by (model_name) (group by (model_name, instance) (last_over_time(${series(FLEET, RUNNING)}[${range}])))`,
    ...[FINISHED, 'vllm:generation_tokens_total'].map((name) => sumRate(FLEET, range, name, byModel)),
    ...[TTFT, ITL, E2E].map((family) => quantile(FLEET, range, 0.95, family, byModel)),
    positive(sumRate(FLEET, range, FINISHED, byModel, 'finished_reason="error"'), sumRate(FLEET, range, FINISHED, byModel)),
    `max by (model_name) (max_over_time(${series(FLEET, KV_USAGE)}[${range}]))`,
    `round(sum by (model_name) (${increase('vllm:num_preemptions_total')}))`,
    ...[TTFT, ITL, TPOT, E2E, QUEUE, 'vllm:request_prompt_tokens', 'vllm:request_generation_tokens'].flatMap((family) =>
      spread(FLEET, window, family),
    ),
    ...['prefill', 'decode'].map((phase) => mean(FLEET, window, `vllm:request_${phase}_time_seconds`)),
    ...[TTFT, ITL, E2E].map((family) => rate(`${family}_bucket`, 'le')),
    rate(FINISHED, 'finished_reason'),
    `${rate(FINISHED, 'finished_reason')} / ignoring (finished_reason) group_left () (${rate(FINISHED)} > 0)`,
    ...[0.5, 0.99].map((q) => quantile(FLEET, window, q, STEP_TOKENS)),
    mean(FLEET, window, STEP_TOKENS),
    ...['vllm:request_prompt_tokens', 'vllm:request_generation_tokens'].map(
      (family) =>
        `sum by (le) (${increase(`${family}_bucket`)}) / on () group_left () (sum(${increase(`${family}_count`)}) > 0)`,
    ),
    ...['status', 'handler'].map((label) => sumRate(TARGET, window, 'http_requests_total', label)),
    mean(TARGET, window, 'http_request_duration_seconds', 'handler'),
  ]
}

function instances(window: string): readonly string[] {
  const each = 'model_name, instance'
  const engine = 'instance, engine'
  const gauge = (operator: string, name: string, labels: string): string => grouped(operator, labels, series(ENGINE, name))
  const fds = ['process_open_fds', 'process_max_fds'].map((name) => grouped('sum', 'instance', series(TARGET, name)))
  const sleep = (state: string): string =>
    grouped('max', engine, series(ENGINE, 'vllm:engine_sleep_state', `sleep_state="${state}"`))
  return [
    gauge('count', RUNNING, each),
    ...[each, engine].flatMap((labels) => [
      gauge('sum', RUNNING, labels),
      gauge('sum', 'vllm:num_requests_waiting', labels),
      gauge('max', KV_USAGE, labels),
      sumRate(ENGINE, window, 'vllm:generation_tokens_total', labels),
      sumRate(ENGINE, window, 'vllm:num_preemptions_total', labels),
    ]),
    ...[each, 'instance'].map((labels) => sumRate(ENGINE, window, FINISHED, labels)),
    ...[each, 'instance'].flatMap((labels) => [TTFT, ITL].map((family) => quantile(ENGINE, window, 0.95, family, labels))),
    quantile(ENGINE, window, 0.95, E2E, 'instance'),
    mean(ENGINE, window, QUEUE, 'instance'),
    sumRate(ENGINE, window, 'vllm:prompt_tokens_total', engine),
    sumRate(ENGINE, window, `${STEP_TOKENS}_count`, engine),
    mean(ENGINE, window, STEP_TOKENS, engine),
    grouped('sum', `${engine}, reason`, series(ENGINE, WAITING_BY_REASON)),
    ratio(ENGINE, window, HITS, LOOKUPS, engine),
    `max by (${each}) ((time() - ${series(TARGET, 'process_start_time_seconds')}) * on (job, instance) group_left (model_name) group by (job, instance, model_name) (${series(ENGINE, RUNNING)}))`,
    sumRate(TARGET, window, 'process_cpu_seconds_total', 'instance'),
    grouped('sum', 'instance', series(TARGET, 'process_resident_memory_bytes')),
    fds.join(' / '),
    series(`${TARGET}, engine=~".+"`, 'vllm:cache_config_info'),
    `topk by (job, instance) (1, ${series(TARGET, 'vllm:lora_requests_info')})`,
    `(1 - ${sleep('awake')}) * (1 + ${sleep('discard_all')})`,
  ]
}

function kvCache(window: string): readonly string[] {
  return [
    ...shared(ENGINE, window),
    ratio(ENGINE, window, 'vllm:prompt_tokens_cached_total', 'vllm:prompt_tokens_total'),
    ...['vllm:request_prompt_tokens', 'vllm:request_prefill_kv_computed_tokens'].map((family) => mean(ENGINE, window, family)),
  ]
}

function serviceStatus(window: string): readonly string[] {
  const isThere = `count(${series(FLEET, RUNNING)})`
  const running = `sum(avg_over_time(${series(FLEET, RUNNING)}[${window}]))`
  const failed = sumRate(FLEET, window, FINISHED, '', 'finished_reason="error"')
  return [
    `(2 - (max(${series(FLEET, 'vllm:engine_sleep_state', 'sleep_state="awake"')}) == bool 0)) or vector(0)`,
    ...[
      quantile(FLEET, window, 0.5, TTFT),
      positive(sumRate(FLEET, window, 'vllm:generation_tokens_total'), running),
      `1 - (${positive(failed, sumRate(FLEET, window, FINISHED))})`,
      `60 * ${sumRate(FLEET, window, FINISHED)}`,
    ].map((query) => `(${query}) and on () ${isThere}`),
  ]
}
