// Flags, LORIKEET_* environment and a config file give one validated, frozen Config. Flag names follow vLLM's where it has one.

export type BackendName = 'onnx' | 'reference' | 'null' | 'cuda'

export interface StaticAdapter {
  readonly name: string
  readonly path: string
}

export interface ModelConfig {
  /** Model directory. */
  readonly path: string
  /** Names the base model answers to; the first is the one reported. */
  readonly servedNames: readonly string[]
  readonly backend: BackendName
  /** `auto` = what the backend prefers. */
  readonly dtype: 'auto' | 'float32' | 'bfloat16' | 'float16'
  /** null = the model's own maximum. */
  readonly maxModelLen: number | null
  /** Threads the CPU backend computes with; 0 = one a physical core. */
  readonly numThreads: number
}

export interface SchedulerConfig {
  readonly maxNumSeqs: number
  readonly maxNumBatchedTokens: number
  /** Tokens a KV block. */
  readonly blockSize: number
  /** null = chosen from free memory and the model. */
  readonly kvCacheBytes: number | null
  readonly enablePrefixCaching: boolean
  /** Requests that may wait before new ones get 429. */
  readonly maxQueue: number
}

export interface AdapterConfig {
  readonly adapters: readonly StaticAdapter[]
  /** Every subdirectory with an adapter is registered at start; the runtime resolver also looks here. null = none. */
  readonly adapterDir: string | null
  /** Paths that `/v1/load_lora_adapter` may read from; empty = anywhere. */
  readonly allowedPathPrefixes: readonly string[]
  readonly allowRuntimeUpdating: boolean
  /** Host-memory budget for loaded adapters. */
  readonly hostBytes: number
  /** Device-memory budget for active adapters. */
  readonly deviceBytes: number
}

export interface ServerConfig {
  readonly host: string
  readonly port: number
  /** Unix domain socket to listen on in place of host and port; null = TCP. */
  readonly uds: string | null
  readonly apiKeys: readonly string[]
  readonly guardMetrics: boolean
  readonly errorStyle: 'vllm' | 'openai'
  readonly bodyLimitBytes: number
  readonly maxLogprobs: number
  /** File with a Jinja template; null = the model's own. */
  readonly chatTemplate: string | null
  /** False: sampling defaults are vLLM's, not generation_config.json's. */
  readonly useGenerationConfig: boolean
  readonly returnTokensAsTokenIds: boolean
  readonly streamInterval: number
  /** Time in-flight requests get after SIGTERM. */
  readonly drainTimeoutMs: number
}

export interface GrpcTlsConfig {
  /** PEM files. */
  readonly certFile: string
  readonly keyFile: string
  /** Clients must show a certificate of one of these authorities; null = none asked for. */
  readonly clientCaFile: string | null
}

export interface GrpcConfig {
  /** null = no gRPC. */
  readonly port: number | null
  /** False: nobody named the port, and where it is taken the server starts without gRPC. */
  readonly isPortRequired: boolean
  readonly maxMessageBytes: number
  readonly hasReflection: boolean
  /** null = cleartext. */
  readonly tls: GrpcTlsConfig | null
  /** Connections older than this are closed, so that clients spread over new replicas; null = never. */
  readonly maxConnectionAgeMs: number | null
}

export interface MetricsConfig {
  /** Adapters with series of their own; the others share one set. */
  readonly maxAdapters: number
  /** Also exports names that vLLM has given up. */
  readonly hasLegacyNames: boolean
  /** What `vllm:lora_requests_info` lists as running. */
  readonly loraInfo: 'running' | 'resident'
}

export interface TracingConfig {
  /** OTLP over HTTP; null = no traces. */
  readonly endpoint: string | null
}

export interface LogConfig {
  readonly level: 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'silent'
  /** Pretty on a terminal, JSON otherwise, unless told. */
  readonly format: 'auto' | 'pretty' | 'json'
}

/** Everything is set, checked and frozen; parts are handed to their owners, never imported as values. */
export interface Config {
  readonly model: ModelConfig
  readonly scheduler: SchedulerConfig
  readonly adapters: AdapterConfig
  readonly server: ServerConfig
  readonly grpc: GrpcConfig
  readonly metrics: MetricsConfig
  readonly tracing: TracingConfig
  readonly log: LogConfig
}
