// What the server tells its metrics: the engine's facts, and every call at its end.

import type { Config } from '../../config.ts'
import type { ModelInfo } from '../../engine/messages.ts'
import type { LorikeetError } from '../../errors.ts'
import type { FinishReason, RejectReason, SequenceRecord } from '../../metrics/records.ts'
import { ServerMetrics } from '../../metrics/server-metrics.ts'
import type { EnginePort } from './engine-port.ts'
import type { Generation } from './generation.ts'

export interface MetricsSources {
  readonly config: Config
  readonly engine: EnginePort
  /** Of the package. */
  readonly version: string
}

/** Metrics that follow the engine from now on. */
export function createServerMetrics({ config, engine, version }: MetricsSources): ServerMetrics {
  const { model } = engine
  const metrics = new ServerMetrics({
    model: servedModel(config, model),
    // Builders of images set it; the package does not know its commit.
    build: { version, revision: process.env['SOURCE_COMMIT'] ?? '' },
    // Memory is the only limit on adapters in a step, so there are as many places as sequences.
    maxAdapters: model.maxNumSeqs,
    adapterLimits: { host: config.adapters.hostBytes, device: config.adapters.deviceBytes },
    maxTrackedAdapters: config.metrics.maxAdapters,
    hasLegacyNames: config.metrics.hasLegacyNames,
    loraInfo: config.metrics.loraInfo,
    snapshot: () => engine.stats(),
    adapters: {
      list: () => engine.adapters(),
      isListed: (name) => engine.findAdapter(name) !== null,
      numLoading: () => engine.numLoadingAdapters,
    },
  })
  engine.onStep(({ timing }) => metrics.observeStep(timing))
  engine.onAdapterActivity((activity) => {
    for (const one of activity) metrics.observeAdapterActivity(one)
  })
  return metrics
}

function servedModel({ model, scheduler }: Config, info: ModelInfo) {
  const { modelType, backend, dtype, maxModelLen, blockSize, numBlocks } = info
  return {
    modelName: model.servedNames[0] ?? model.path,
    modelType,
    backend,
    dtype,
    maxModelLen,
    blockSize,
    numBlocks,
    isPrefixCachingEnabled: scheduler.enablePrefixCaching,
  }
}

/** One record a prompt, when the call has ended. */
export function observeGeneration({ request, choices }: Generation, metrics: ServerMetrics): void {
  const { numSamples, sampling, adapter } = request
  for (let first = 0; first < choices.length; first += numSamples) {
    const maxTokens = sampling[first / numSamples]?.maxTokens ?? 0
    const sequences: SequenceRecord[] = []
    for (const { finish, engineFinish } of choices.slice(first, first + numSamples)) {
      // Null = the engine never took it.
      if (engineFinish === null) continue
      const reason: FinishReason = finish?.reason ?? engineFinish.reason
      sequences.push({ reason, times: engineFinish.metrics, maxTokens })
    }
    metrics.observePrompt({ adapter: adapter?.name ?? null, sequences })
  }
}

/** Why a call was refused, where that is worth counting. */
export function rejectReason(error: LorikeetError): RejectReason | null {
  switch (error.code) {
    case 'QUEUE_FULL':
      return 'queue_full'
    case 'DRAINING':
      return 'draining'
    case 'ENGINE_STARTING':
    case 'ENGINE_DEAD':
      return 'unavailable'
    case 'UNAUTHORIZED':
      return 'auth'
    default:
      return null
  }
}
