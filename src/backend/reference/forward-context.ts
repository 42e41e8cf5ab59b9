import type { StepPlan } from '../../core/step-plan.ts'
import type { DecoderSpec } from '../../model/decoder-spec.ts'
import type { KvPool } from './kv-pool.ts'
import type { ResidentAdapters } from './resident-adapters.ts'
import type { ModelWeights } from './site-weights.ts'

export interface ForwardContext {
  readonly spec: DecoderSpec
  readonly weights: ModelWeights
  readonly adapters: ResidentAdapters
  readonly pool: KvPool
  readonly plan: StepPlan
}
