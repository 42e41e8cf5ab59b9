// The one table of options: flags, LORIKEET_* variables, config-file keys, validation, --help and docs/configuration.md all read it.
// Names, aliases and defaults are vLLM's where it has the option, unless a reason stands beside them.

import { adapters } from './adapter-value.ts'
import { type Option, option } from './option.ts'
import * as value from './option-value.ts'
import { VLLM_OPTIONS } from './vllm-options.ts'

/** vLLM's gRPC entry point listens there too. */
export const DEFAULT_GRPC_PORT = 50_051

const GIB = 2 ** 30
const MIB = 2 ** 20

const MODEL_OPTIONS = {
  model: option('Model', value.text('DIR'), '', 'Model directory in Hugging Face layout: config.json and safetensors.', {
    shown: 'none, required',
  }),
  'served-model-name': option('Model', value.texts('NAME'), [], 'Names the base model answers to; answers carry the first.', {
    shown: 'the --model text',
  }),
  backend: option(
    'Model',
    value.choice(['onnx', 'reference', 'null', 'cuda']),
    'onnx',
    'What computes: onnx (CPU), reference (slow TypeScript), null (no maths), cuda (NVIDIA GPUs).',
  ),
  dtype: option(
    'Model',
    value.choice(['auto', 'float32', 'bfloat16', 'float16'], { half: 'float16', float: 'float32' }),
    'auto',
    'Arithmetic of the backend; auto is what it prefers.',
  ),
  'max-model-len': option(
    'Model',
    value.tokensOrAuto(),
    null,
    'Longest prompt plus output, in tokens (8k is 8,000 and 8K is 8,192).',
    {
      shown: "the model's own",
    },
  ),
  'num-threads': option('Model', value.integer(0, 1024), 0, 'CPU threads the backend computes with; 0 is one a physical core.'),
  'chat-template': option('Model', value.text('FILE'), null, "Jinja chat template in place of the model's own.", {
    shown: "the model's own",
  }),
  'generation-config': option(
    'Model',
    value.choice(['auto', 'vllm']),
    'auto',
    "Sampling defaults: auto takes the model's generation_config.json, vllm takes vLLM's neutral ones.",
  ),
} as const

const ADAPTER_OPTIONS = {
  adapter: option(
    'Adapters',
    adapters(),
    [],
    'Adapter to load at start: NAME=DIR or {"name":..., "path":...}. One that does not load stops the start.',
    {
      shown: 'none',
      aliases: ['lora-modules'],
    },
  ),
  'adapter-dir': option(
    'Adapters',
    value.text('DIR'),
    null,
    'Every subdirectory with an adapter is loaded at start; the refused are logged. New ones are found by name at the first request if runtime loading is allowed.',
    {
      shown: 'none',
      vllmEnv: ['VLLM_LORA_RESOLVER_CACHE_DIR'],
    },
  ),
  // vLLM mounts the two routes only when told: they read paths that a client names.
  'allow-runtime-lora-updating': option(
    'Adapters',
    value.toggle(),
    false,
    'Mount /v1/load_lora_adapter and /v1/unload_lora_adapter, and look unknown names up in --adapter-dir.',
    {
      vllmEnv: ['VLLM_ALLOW_RUNTIME_LORA_UPDATING'],
    },
  ),
  'allowed-lora-path-prefix': option(
    'Adapters',
    value.texts('DIR'),
    [],
    'Only directories under these may be loaded at run time.',
    {
      shown: 'anywhere',
      vllmEnv: ['VLLM_RUNTIME_LORA_ALLOWED_PATH_PREFIXES'],
    },
  ),
  // Budgets, not reservations: 2 GiB is some 25 rank-16 adapters of an 8B model, or every adapter a small model will ever have.
  'adapter-host-bytes': option('Adapters', value.bytes(MIB), 2 * GIB, 'Host memory that loaded adapters may take.', {
    shown: '2GiB',
  }),
  'adapter-device-bytes': option('Adapters', value.bytes(MIB), 2 * GIB, 'Device memory that active adapters may take.', {
    shown: '2GiB',
  }),
} as const

const SCHEDULING_OPTIONS = {
  'max-num-seqs': option('Scheduling', value.integer(1, 65_536), 256, 'Requests that run at once.'),
  // vLLM's 2,048 suits GPUs. On two CPU cores a step of 512 prompt tokens already holds up every running stream for about a second.
  'max-num-batched-tokens': option(
    'Scheduling',
    value.integer(1, 1_048_576),
    512,
    'Tokens a step: prompts longer than this are computed in chunks between the steps of others.',
  ),
  'block-size': option('Scheduling', value.integer(1, 1024), 16, 'Tokens a KV block.'),
  'kv-cache-bytes': option('Scheduling', value.bytes(1), null, 'Size of the KV cache.', {
    shown: 'from free memory and the model',
    aliases: ['kv-cache-memory-bytes'],
  }),
  'enable-prefix-caching': option(
    'Scheduling',
    value.toggle(),
    true,
    'Keep the KV blocks of finished prompts for prompts that begin alike.',
  ),
  // A queue entry is a prompt in host memory: 4,096 of 8K tokens are 128 MiB. Beyond that, a client does better to try elsewhere.
  'max-queue': option('Scheduling', value.integer(0), 4096, 'Requests that may wait; more get 429.'),
} as const

const SERVER_OPTIONS = {
  host: option('Server', value.text('ADDRESS'), '0.0.0.0', 'Address to listen on.'),
  port: option('Server', value.integer(0, 65_535), 8000, 'Port to listen on; 0 takes a free one.'),
  uds: option('Server', value.text('PATH'), null, 'Unix domain socket to listen on in place of host and port.'),
  'api-key': option(
    'Server',
    value.texts('KEY'),
    [],
    'Keys that clients must send as "Authorization: Bearer KEY"; none means any.',
    {
      shown: 'none',
      vllmEnv: ['VLLM_API_KEY'],
    },
  ),
  'guard-metrics': option('Server', value.toggle(), false, '/metrics asks for the key too.'),
  'error-style': option(
    'Server',
    value.choice(['vllm', 'openai']),
    'vllm',
    "Error bodies: vLLM's integer codes or OpenAI's words.",
  ),
  // 32 MiB is the limit of vLLM's newer frontend; Fastify's 1 MiB is too small for batches of token ids.
  'body-limit': option('Server', value.bytes(1024), 32 * MIB, 'Largest request body; a larger one gets 413.', {
    shown: '32MiB',
  }),
  'max-logprobs': option(
    'Server',
    value.integer(-1),
    20,
    'Most alternatives a request may ask for by token; -1 is the whole vocabulary.',
  ),
  'return-tokens-as-token-ids': option('Server', value.toggle(), false, 'Tokens in logprobs appear as token_id:N.'),
  'stream-interval': option(
    'Server',
    value.integer(1),
    1,
    'Tokens a stream chunk; the first and the last chunk are sent at once.',
  ),
  // Five seconds below Kubernetes' default grace period of 30 s, so that the process ends by itself and not by SIGKILL.
  'drain-timeout': option(
    'Server',
    value.seconds(86_400),
    25_000,
    'Time that running requests get after SIGTERM before they are aborted.',
    {
      shown: '25',
      aliases: ['shutdown-timeout'],
    },
  ),
} as const

const GRPC_OPTIONS = {
  grpc: option('gRPC', value.toggle(), true, 'Serve gRPC beside HTTP.'),
  'grpc-port': option('gRPC', value.integer(0, 65_535), null, 'Port of gRPC, on the address of --host; 0 is no gRPC.', {
    shown: `${DEFAULT_GRPC_PORT}, if it is free`,
  }),
  // The same as for REST: gRPC's own default of 4 MiB is too small for batches of token ids.
  'grpc-max-message-bytes': option(
    'gRPC',
    value.bytes(1024),
    32 * MIB,
    'Largest message a client may send; a larger one gets RESOURCE_EXHAUSTED.',
    { shown: '32MiB' },
  ),
  'grpc-reflection': option(
    'gRPC',
    value.toggle(),
    true,
    'Answer server reflection, by which tools such as grpcurl learn the API.',
  ),
  'grpc-tls-cert': option('gRPC', value.text('FILE'), null, 'PEM certificate chain; with --grpc-tls-key it turns TLS on.', {
    shown: 'none, cleartext',
  }),
  'grpc-tls-key': option('gRPC', value.text('FILE'), null, 'PEM private key of --grpc-tls-cert.', { shown: 'none' }),
  'grpc-tls-client-ca': option(
    'gRPC',
    value.text('FILE'),
    null,
    'PEM authorities of client certificates; with it, clients without one are refused (mTLS).',
    { shown: 'none' },
  ),
  'grpc-max-connection-age': option(
    'gRPC',
    value.seconds(31_536_000),
    0,
    'Connections are closed at this age, calls finished, so that clients spread over new replicas; 0 is never.',
  ),
} as const

const METRICS_OPTIONS = {
  // Thirty lines an adapter: four thousand in all, which endpoint pickers read every 50 ms.
  'metrics-max-adapters': option(
    'Metrics and traces',
    value.integer(0, 10_000),
    128,
    'Adapters with metrics of their own, by recent use; the others share the label _other.',
  ),
  'legacy-metrics': option(
    'Metrics and traces',
    value.toggle(),
    true,
    'Also export metric names that vLLM has given up and deployed dashboards still ask for.',
  ),
  // Under the other reading an idle server whose places have been used looks full to the endpoint picker.
  'lora-info': option(
    'Metrics and traces',
    value.choice(['running', 'resident']),
    'running',
    'Adapters that vllm:lora_requests_info lists as running: those of running requests, or all on the device.',
  ),
  'otlp-traces-endpoint': option(
    'Metrics and traces',
    value.checked(value.text('URL'), otlpEndpointFault),
    null,
    'Send a trace span for each request there, by OTLP over HTTP: http://collector:4318/v1/traces.',
    { shown: 'none, no traces', vllmEnv: ['OTEL_EXPORTER_OTLP_TRACES_ENDPOINT'] },
  ),
} as const

/** The reason a URL is none that traces can be sent to. */
function otlpEndpointFault(url: string): string | null {
  if (/^grpcs?:/.test(url)) return 'names OTLP over gRPC; use the HTTP port of the collector, http://HOST:4318/v1/traces'
  return /^https?:$/.test(URL.canParse(url) ? new URL(url).protocol : '') ? null : `must be an http or https URL, not '${url}'`
}

const LOG_OPTIONS = {
  'log-level': option(
    'Logging and configuration',
    value.choice(['trace', 'debug', 'info', 'warn', 'error', 'silent']),
    'info',
    'Least severe lines that are logged; each request is one line at info.',
  ),
  'log-format': option(
    'Logging and configuration',
    value.choice(['auto', 'pretty', 'json']),
    'auto',
    'auto is pretty on a terminal and JSON otherwise.',
  ),
  config: option(
    'Logging and configuration',
    value.text('FILE'),
    null,
    'JSON file whose keys are these names. Flags win over LORIKEET_* variables, and both over the file.',
  ),
} as const

export const OPTIONS = {
  ...MODEL_OPTIONS,
  ...ADAPTER_OPTIONS,
  ...SCHEDULING_OPTIONS,
  ...SERVER_OPTIONS,
  ...GRPC_OPTIONS,
  ...METRICS_OPTIONS,
  ...LOG_OPTIONS,
  ...VLLM_OPTIONS,
} as const satisfies Record<string, Option>

export type OptionName = keyof typeof OPTIONS
export type OptionValues = { readonly [Name in OptionName]: (typeof OPTIONS)[Name] extends Option<infer T> ? T : never }

export const OPTION_NAMES = Object.keys(OPTIONS) as readonly OptionName[]

/** The option a flag or config-file key names; vLLM also reads underscores. Null when unknown. */
export function findOption(name: string): OptionName | null {
  const dashed = name.replaceAll('_', '-')
  return OPTION_NAMES.find((known) => known === dashed || OPTIONS[known].aliases.includes(dashed)) ?? null
}

export function envName(name: OptionName): string {
  return `LORIKEET_${name.replaceAll('-', '_').toUpperCase()}`
}
