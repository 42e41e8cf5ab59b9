// The HTTP server as its process uses it: build, listen, drain.

import type { FastifyInstance } from 'fastify'
import type { Logger } from 'pino'
import type { Config } from '../../config.ts'
import { LorikeetError } from '../../errors.ts'
import { ServerMetrics } from '../../metrics/server-metrics.ts'
import type { TextModel } from '../../tokenizer/text-model.ts'
import { AdapterDirectory } from '../generation/adapter-directory.ts'
import type { EnginePort } from '../generation/engine-port.ts'
import type { Generation } from '../generation/generation.ts'
import { Generations } from '../generation/generations.ts'
import { KeyedLock } from '../generation/keyed-lock.ts'
import { ModelResolver } from '../generation/model-resolver.ts'
import { buildApp } from './app.ts'

export interface HttpServerOptions {
  readonly config: Config
  readonly engine: EnginePort
  readonly text: TextModel
  readonly logger: Logger
  /** Of the package. */
  readonly version: string
}

export class HttpServer {
  /** For tests that inject requests. */
  readonly app: FastifyInstance
  readonly #generations: Generations
  readonly #config: Config

  private constructor(app: FastifyInstance, generations: Generations, config: Config) {
    this.app = app
    this.#generations = generations
    this.#config = config
  }

  /** The engine must have been ready once: its model's shape is needed. */
  static async create(options: HttpServerOptions): Promise<HttpServer> {
    const { config, engine, text, logger, version } = options
    const metrics = createMetrics(options)
    const generations = new Generations(engine, config.scheduler.maxQueue, {
      onEnded: (generation) => recordGeneration(generation, metrics, logger),
    })
    const adapterLock = new KeyedLock()
    const { adapterDir, allowRuntimeUpdating } = config.adapters
    const directory =
      adapterDir === null || !allowRuntimeUpdating ? null : new AdapterDirectory(engine, adapterDir, adapterLock)
    const resolver = new ModelResolver(engine, config.model.servedNames, directory)
    const startedAtS = Math.floor(Date.now() / 1000)
    const context = { config, engine, text, generations, resolver, adapterLock, metrics, logger, version, startedAtS }
    return new HttpServer(await buildApp(context), generations, config)
  }

  /** Resolves to the address that clients use. Throws CONFIG_INVALID when it cannot be had. */
  async listen(): Promise<string> {
    const { host, port, uds } = this.#config.server
    try {
      return await this.app.listen(uds === null ? { host, port } : { path: uds })
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      throw new LorikeetError('CONFIG_INVALID', { option: uds === null ? '--port' : '--uds', reason }, { cause: error })
    }
  }

  /** Fails readiness, lets running requests finish for `timeoutMs`, aborts the rest, closes. */
  async close(timeoutMs: number): Promise<void> {
    await this.#generations.drain(timeoutMs)
    await this.app.close()
  }
}

function createMetrics({ config, engine, version }: HttpServerOptions): ServerMetrics {
  const { model } = engine
  const metrics = new ServerMetrics({
    modelName: config.model.servedNames[0] as string,
    version,
    blockSize: model.blockSize,
    numBlocks: model.numBlocks,
    maxModelLen: model.maxModelLen,
    dtype: model.dtype,
    isPrefixCachingEnabled: config.scheduler.enablePrefixCaching,
    // Memory is the only limit on adapters in a step, so there are as many places as sequences.
    maxAdapters: model.maxNumSeqs,
    snapshot: () => engine.stats(),
  })
  engine.onStep(({ timing }) => metrics.observeStep(timing))
  return metrics
}

/** One log line a call, one observation a sequence. */
function recordGeneration(generation: Generation, metrics: ServerMetrics, logger: Logger): void {
  const { request, choices, usage } = generation
  let firstTokenAtMs = Number.POSITIVE_INFINITY
  for (const choice of choices) {
    const finish = choice.engineFinish
    if (finish === null) continue
    metrics.observeRequest(choice.finish?.reason ?? finish.reason, finish.metrics)
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
