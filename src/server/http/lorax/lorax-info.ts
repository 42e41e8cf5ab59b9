// GET /info of LoRAX and Text Generation Inference.

import type { ServerContext } from '../../generation/server-context.ts'
import { MAX_BEST_OF, MAX_STOPS } from '../../request/lorax-fields.ts'
import { computeType } from './lorax-headers.ts'

/** Members about mechanisms that there are none of here have neutral values, because typed clients insist on them. */
export function loraxInfo({ config, engine, resolver, version }: ServerContext): Record<string, unknown> {
  const { model } = engine
  return {
    model_id: resolver.baseName,
    model_sha: null,
    model_dtype: model.dtype,
    model_device_type: computeType(model.backend),
    model_pipeline_tag: 'text-generation',
    max_concurrent_requests: model.maxNumSeqs + config.scheduler.maxQueue,
    max_best_of: MAX_BEST_OF,
    max_stop_sequences: MAX_STOPS,
    // One token is left for the output.
    max_input_length: model.maxModelLen - 1,
    max_total_tokens: model.maxModelLen,
    waiting_served_ratio: 0,
    max_batch_total_tokens: model.numBlocks * model.blockSize,
    max_waiting_tokens: 0,
    validation_workers: 1,
    eager_prefill: false,
    version,
    sha: null,
    docker_label: null,
    request_logger_url: null,
  }
}
