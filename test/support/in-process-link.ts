// Engines that EngineClient runs in this process: null backend, fake adapters, and ways to make them die.

import { createNullBackend } from '../../src/backend/null/null-backend.ts'
import { Engine } from '../../src/engine/engine.ts'
import type { EngineLinkFactory, EngineLinkListener, EngineStart } from '../../src/engine/engine-link.ts'
import { EngineLoop } from '../../src/engine/engine-loop.ts'
import type { EngineCommand, ModelInfo } from '../../src/engine/messages.ts'
import { asLorikeetError, type LorikeetError } from '../../src/errors.ts'
import { FakeAdapters } from './fake-adapters.ts'

const MODEL: ModelInfo = {
  modelType: 'fake',
  backend: 'null',
  dtype: 'float32',
  vocabSize: 997,
  maxModelLen: 256,
  blockSize: 4,
  numBlocks: 256,
  maxNumSeqs: 64,
  maxNumBatchedTokens: 128,
}

export class InProcessEngines {
  /** One entry an engine ever started. */
  readonly starts: EngineStart[] = []
  readonly commands: EngineCommand[] = []
  /** Engines started while this is set die before they are ready. */
  startError: LorikeetError | null = null
  stepDelayMs = 0
  /** What the live engine holds. */
  adapters: FakeAdapters | null = null
  engine: Engine | null = null
  #listener: EngineLinkListener | null = null

  readonly links: EngineLinkFactory = (start, listener) => {
    this.starts.push(start)
    this.#listener = listener
    const loop = new EngineLoop()
    let isEnded = false
    const tell = (work: () => void): void => {
      setImmediate(() => {
        if (!isEnded) work()
      })
    }
    const { startError } = this
    if (startError !== null) {
      tell(() => listener.onEvent({ type: 'fatal', error: startError.toWire() }))
      return { post: () => {}, terminate: async () => {} }
    }
    const backend = createNullBackend({
      ...MODEL,
      adapterBytes: 100,
      stepDelayMs: this.stepDelayMs,
    })
    const adapters = new FakeAdapters(backend, start.firstAdapterId)
    const engine = new Engine({
      ...MODEL,
      backend,
      adapters,
      enablePrefixCaching: true,
      receive: () => loop.receive(),
      send: (event) => tell(() => listener.onEvent(event)),
      clock: () => performance.timeOrigin + performance.now(),
      drawSeed: () => 1,
    })
    this.adapters = adapters
    this.engine = engine
    tell(() => listener.onEvent({ type: 'ready', model: MODEL }))
    loop.run(engine).then(
      () => tell(() => listener.onEvent({ type: 'stopped' })),
      (error: unknown) => tell(() => listener.onEvent({ type: 'fatal', error: asLorikeetError(error).toWire() })),
    )
    return {
      post: (command) => {
        this.commands.push(command)
        loop.push(structuredClone(command))
      },
      terminate: async () => {
        if (isEnded) return
        isEnded = true
        loop.push({ type: 'shutdown' })
      },
    }
  }

  /** The live engine's thread ends by itself. */
  crash(reason: string): void {
    this.#listener?.onExit(reason)
  }

  fail(error: LorikeetError): void {
    this.#listener?.onEvent({ type: 'fatal', error: error.toWire() })
  }
}
