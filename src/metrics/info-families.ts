// What never changes while the process lives.

import type { MetricsRegistry } from './metrics-registry.ts'

export interface ServedModel {
  /** First served base name; never an adapter. */
  readonly modelName: string
  readonly modelType: string
  readonly backend: string
  readonly dtype: string
  readonly maxModelLen: number
  readonly blockSize: number
  readonly numBlocks: number
  readonly isPrefixCachingEnabled: boolean
}

export interface Build {
  readonly version: string
  /** Commit, or '' where the build does not know it. */
  readonly revision: string
}

const SLEEP_STATES = ['awake', 'weights_offloaded', 'discard_all'] as const

export function registerInfoFamilies(
  registry: MetricsRegistry,
  labels: Readonly<Record<string, string>>,
  model: ServedModel,
  build: Build,
): void {
  const { blockSize, numBlocks, maxModelLen } = model
  registry.info('vllm:cache_config_info', '1; the shape of the KV cache.', {
    block_size: String(blockSize),
    num_gpu_blocks: String(numBlocks),
    cache_dtype: model.dtype,
    // As Python prints it, which readers compare with.
    enable_prefix_caching: model.isPrefixCachingEnabled ? 'True' : 'False',
    gpu_memory_utilization: '1.0',
    kv_cache_size_tokens: String(numBlocks * blockSize),
    kv_cache_max_concurrency: String((numBlocks * blockSize) / maxModelLen),
    engine: '0',
  })
  registry.gauge(
    'vllm:engine_sleep_state',
    '1 for the state it is in: always awake, never weights_offloaded or discard_all.',
    [...Object.keys(labels), 'sleep_state'],
    (set) => {
      for (const state of SLEEP_STATES) set({ ...labels, sleep_state: state }, state === 'awake' ? 1 : 0)
    },
  )
  registry.info('lorikeet_build_info', '1; what runs.', { version: build.version, revision: build.revision })
  registry.info('lorikeet_model_info', '1; the base model and what computes it.', {
    model_name: model.modelName,
    model_type: model.modelType,
    backend: model.backend,
    dtype: model.dtype,
    max_model_len: String(maxModelLen),
  })
}
