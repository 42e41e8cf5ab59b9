// What every protocol in front of the engine shares: one of each a process, so that limits, draining and names hold for all of them.

import type { Logger } from 'pino'
import type { Config } from '../../config.ts'
import type { LorikeetError } from '../../errors.ts'
import type { ServerMetrics } from '../../metrics/server-metrics.ts'
import type { TextModel } from '../../tokenizer/text-model.ts'
import { AdapterAdmin } from './adapter-admin.ts'
import { AdapterDirectory } from './adapter-directory.ts'
import { AdapterMixtures } from './adapter-mixtures.ts'
import { ApiKeys } from './api-keys.ts'
import type { EnginePort } from './engine-port.ts'
import type { Generation } from './generation.ts'
import { Generations } from './generations.ts'
import { KeyedLock } from './keyed-lock.ts'
import { createServerMetrics, observeGeneration, rejectReason } from './metrics-reporting.ts'
import { ModelResolver } from './model-resolver.ts'
import type { RequestTracer } from './request-tracer.ts'

export interface ServerContextOptions {
  readonly config: Config
  /** Must have been ready once: its model's shape is needed. */
  readonly engine: EnginePort
  readonly text: TextModel
  readonly logger: Logger
  /** Of the package. */
  readonly version: string
  /** Absent = no traces. */
  readonly tracer?: RequestTracer
}

export interface ServerContext extends ServerContextOptions {
  readonly generations: Generations
  readonly resolver: ModelResolver
  readonly adapterAdmin: AdapterAdmin
  readonly apiKeys: ApiKeys
  readonly metrics: ServerMetrics
  /** Unix seconds. */
  readonly startedAtS: number
}

export function createServerContext(options: ServerContextOptions): ServerContext {
  const { config, engine, logger } = options
  const metrics = createServerMetrics(options)
  const countRefusal = (error: LorikeetError): void => {
    const reason = rejectReason(error)
    if (reason !== null) metrics.countRejected(reason)
  }
  const observer = {
    onEnded: (generation: Generation) => {
      observeGeneration(generation, metrics)
      logGeneration(generation, logger)
    },
    onRefused: countRefusal,
  }
  const generations = new Generations(engine, config.scheduler.maxQueue, observer, options.tracer ?? null)
  // Held per adapter name while it is loaded or unloaded, by whichever way.
  const adapterLock = new KeyedLock()
  const { adapterDir, allowRuntimeUpdating, allowedPathPrefixes } = config.adapters
  const directory = adapterDir === null || !allowRuntimeUpdating ? null : new AdapterDirectory(engine, adapterDir, adapterLock)
  const adapterAdmin = new AdapterAdmin(engine, adapterLock, (name) => resolver.isBaseName(name), allowedPathPrefixes)
  const resolver = new ModelResolver(engine, config.model.servedNames, {
    directory,
    loadPath: allowRuntimeUpdating ? (path) => adapterAdmin.loadPath(path) : null,
    mixtures: new AdapterMixtures(engine, adapterLock),
  })
  return {
    ...options,
    generations,
    resolver,
    adapterAdmin,
    apiKeys: new ApiKeys(config.server.apiKeys, countRefusal),
    metrics,
    startedAtS: Math.floor(Date.now() / 1000),
  }
}

/** One log line a call. */
function logGeneration(generation: Generation, logger: Logger): void {
  const { request, choices, usage } = generation
  let firstTokenAtMs = Number.POSITIVE_INFINITY
  for (const choice of choices) {
    const finish = choice.engineFinish
    if (finish === null) continue
    firstTokenAtMs = Math.min(firstTokenAtMs, finish.metrics.firstTokenAtMs ?? Number.POSITIVE_INFINITY)
  }
  const nowMs = performance.timeOrigin + performance.now()
  logger.info(
    {
      requestId: request.responseId,
      adapter: request.adapter?.name ?? null,
      promptTokens: usage.numPromptTokens,
      outputTokens: usage.numOutputTokens,
      ttftMs: Number.isFinite(firstTokenAtMs) ? round(firstTokenAtMs - request.arrivedAtMs) : null,
      totalMs: round(nowMs - request.arrivedAtMs),
      finishReason: [
        ...new Set(choices.map((choice) => choice.finish?.reason ?? choice.engineFinish?.reason ?? 'error')),
      ].join(),
    },
    'request',
  )
}

/** To a tenth of a millisecond: clocks of two threads do not agree more closely. */
function round(ms: number): number {
  return Math.round(ms * 10) / 10
}
