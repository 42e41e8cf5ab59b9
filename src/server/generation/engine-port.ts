// What the server needs of the engine. The engine client implements it; tests give a scripted one.

import type { RequestId } from '../../core/ids.ts'
import type { EngineState, StepEvent } from '../../engine/engine-client.ts'
import type {
  AdapterActivity,
  AdapterInfo,
  AdapterSource,
  EngineStats,
  ModelInfo,
  NewRequest,
  RequestOutput,
} from '../../engine/messages.ts'

export interface EnginePort {
  /** Throws ENGINE_STARTING before the engine is ready for the first time. */
  readonly model: ModelInfo
  readonly state: EngineState
  /** `sink` is called until an output with `finish` set, exactly one of which comes. */
  submit(request: NewRequest, sink: (output: RequestOutput) => void): void
  /** Unknown and finished ids are ignored. */
  abort(requestIds: readonly RequestId[]): void
  loadAdapter(source: AdapterSource, replace: boolean): Promise<AdapterInfo>
  unloadAdapter(name: string): Promise<void>
  findAdapter(name: string): AdapterInfo | null
  /** In load order. */
  adapters(): readonly AdapterInfo[]
  stats(): EngineStats
  /** `loadAdapter` calls under way. */
  readonly numLoadingAdapters: number
  /** Calls back with what happened to weights of adapters; returns how to stop that. */
  onAdapterActivity(listener: (activity: readonly AdapterActivity[]) => void): () => void
  /** Calls back after every step; returns how to stop that. */
  onStep(listener: (event: StepEvent) => void): () => void
}
