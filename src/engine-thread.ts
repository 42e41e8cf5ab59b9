// Thread entry: opens the model, wires backend, adapter store and engine, and turns the engine until it is told to stop.

import { parentPort, receiveMessageOnPort, Worker, workerData } from 'node:worker_threads'
import { AdapterStore } from './adapter/adapter-store.ts'
import { LoaderClient } from './adapter/loader-client.ts'
import type { LoaderWorkerData } from './adapter/loader-messages.ts'
import type { Backend } from './backend/backend.ts'
import { createBackend } from './backend/create-backend.ts'
import type { Config } from './config.ts'
import { invariant } from './core/invariant.ts'
import { Engine } from './engine/engine.ts'
import type { EngineStart } from './engine/engine-link.ts'
import { EngineLoop } from './engine/engine-loop.ts'
import type { EngineCommand, EngineEvent, ModelInfo } from './engine/messages.ts'
import { asLorikeetError, LorikeetError } from './errors.ts'
import type { ModelSource } from './model/model-source.ts'
import { openModel } from './model/open-model.ts'

/** Progress is for a person at a terminal: more often than this nobody sees. */
const PROGRESS_INTERVAL_MS = 50

/** Backends count what they read in float32, whatever the files hold. */
const FLOAT32_BYTES = 4

invariant(parentPort !== null, 'engine-thread runs as a worker')
const port = parentPort
const { config, firstAdapterId } = workerData as EngineStart
const send = (event: EngineEvent): void => port.postMessage(event)
const clock = (): number => performance.timeOrigin + performance.now()

/** The checkpoint's limit, or the lower one that was asked for. */
function chooseMaxModelLen(model: ModelSource): number {
  const { maxPositions } = model.spec
  const asked = config.model.maxModelLen
  if (asked === null) return maxPositions
  if (asked <= maxPositions) return asked
  const reason = `${asked} is more than the ${maxPositions} positions of this model`
  throw new LorikeetError('CONFIG_INVALID', { option: '--max-model-len', reason })
}

/** A sequence must fit the KV cache alone; a length nobody asked for gives way, one that was asked for fails the start. */
function fitMaxModelLen(maxModelLen: number, backend: Backend): number {
  const { numBlocks, blockSize, bytesPerBlock } = backend.capacity
  const numTokens = numBlocks * blockSize
  if (numTokens >= maxModelLen || config.model.maxModelLen === null) return Math.min(numTokens, maxModelLen)
  const needBytes = Math.ceil(maxModelLen / blockSize) * bytesPerBlock
  const reason = `${maxModelLen} tokens need ${needBytes} bytes of KV cache and it holds ${numTokens} tokens; raise --kv-cache-bytes`
  throw new LorikeetError('CONFIG_INVALID', { option: '--max-model-len', reason })
}

function describeModel(model: ModelSource, backend: Backend, maxModelLen: number, { scheduler }: Config): ModelInfo {
  return {
    modelType: model.spec.modelType,
    backend: backend.name,
    dtype: backend.dtype ?? 'float32',
    vocabSize: backend.vocabSize,
    maxModelLen,
    blockSize: backend.capacity.blockSize,
    numBlocks: backend.capacity.numBlocks,
    maxNumSeqs: Math.min(scheduler.maxNumSeqs, scheduler.maxNumBatchedTokens),
    maxNumBatchedTokens: scheduler.maxNumBatchedTokens,
  }
}

function reportProgress(model: ModelSource): (loadedBytes: number) => void {
  let totalBytes = 0
  for (const { shape } of model.parameters.values())
    totalBytes += shape.reduce((product, size) => product * size, FLOAT32_BYTES)
  let sentAtMs = Number.NEGATIVE_INFINITY
  return (loadedBytes) => {
    const nowMs = clock()
    if (nowMs - sentAtMs < PROGRESS_INTERVAL_MS && loadedBytes < totalBytes) return
    sentAtMs = nowMs
    send({ type: 'loading', loadedBytes: Math.min(loadedBytes, totalBytes), totalBytes })
  }
}

async function serve(): Promise<void> {
  const loop = new EngineLoop()
  port.on('message', (command: EngineCommand) => loop.push(command))
  const model = openModel(config.model.path)
  const askedMaxModelLen = chooseMaxModelLen(model)
  const backend = await createBackend({ config, model, maxModelLen: askedMaxModelLen, onProgress: reportProgress(model) })
  const maxModelLen = fitMaxModelLen(askedMaxModelLen, backend)
  const loaderData: LoaderWorkerData = { modelPath: model.path }
  const loader = new LoaderClient({
    start: () =>
      new Worker(new URL('./loader-thread.js', import.meta.url), { workerData: loaderData, name: 'lorikeet-loader' }),
    onWarning: (adapterName, message) => send({ type: 'warning', message: `adapter '${adapterName}': ${message}` }),
  })
  const adapters = new AdapterStore({
    device: backend,
    loader,
    hostBytes: config.adapters.hostBytes,
    firstAdapterId,
    clock,
    onChange: () => {
      engine.markAdaptersChanged()
      loop.wake()
    },
  })
  const engine = new Engine({
    backend,
    adapters,
    maxNumSeqs: config.scheduler.maxNumSeqs,
    maxNumBatchedTokens: config.scheduler.maxNumBatchedTokens,
    maxModelLen,
    enablePrefixCaching: config.scheduler.enablePrefixCaching,
    // Commands that the event loop has not handed over yet count as arrived: an abort never waits for a step it could stop.
    receive: () => loop.receive() ?? (receiveMessageOnPort(port)?.message as EngineCommand | undefined) ?? null,
    send,
    clock,
    drawSeed: () => Math.floor(Math.random() * 2 ** 52),
  })
  send({ type: 'ready', model: describeModel(model, backend, maxModelLen, config) })
  await loop.run(engine)
  adapters.dispose()
  await loader.dispose()
  await backend.dispose()
}

try {
  await serve()
  send({ type: 'stopped' })
} catch (error) {
  send({ type: 'fatal', error: asLorikeetError(error).toWire() })
  process.exitCode = 1
}
// Whatever is still open on this thread (a loader at work, a native pool) has nobody left to serve.
process.exit()
