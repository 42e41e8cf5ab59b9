// What every route is given.

import type { Logger } from 'pino'
import type { Config } from '../../config.ts'
import type { ServerMetrics } from '../../metrics/server-metrics.ts'
import type { TextModel } from '../../tokenizer/text-model.ts'
import type { EnginePort } from '../generation/engine-port.ts'
import type { Generations } from '../generation/generations.ts'
import type { KeyedLock } from '../generation/keyed-lock.ts'
import type { ModelResolver } from '../generation/model-resolver.ts'

export interface RouteContext {
  readonly config: Config
  readonly engine: EnginePort
  readonly text: TextModel
  readonly generations: Generations
  readonly resolver: ModelResolver
  /** Held per adapter name while it is loaded or unloaded. */
  readonly adapterLock: KeyedLock
  readonly metrics: ServerMetrics
  readonly logger: Logger
  readonly version: string
  /** Unix seconds. */
  readonly startedAtS: number
}
