// The engine on its own thread as in the server, without HTTP and text: what the in-process modes measure.

import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { loadStartAdapters } from '../../src/cli/start-adapters.ts'
import { loadConfig } from '../../src/config/load-config.ts'
import { requestId } from '../../src/core/ids.ts'
import { EngineClient } from '../../src/engine/engine-client.ts'
import type { AdapterInfo, ModelInfo, RequestFinish, RequestOutput } from '../../src/engine/messages.ts'
import { LorikeetError } from '../../src/errors.ts'
import type { ServerInfo } from '../client/server-info.ts'
import { greedy } from '../greedy-sampling.ts'

const THREAD_FILE = 'engine-thread.js'

/** Ids below are control tokens in most vocabularies. */
const FIRST_ORDINARY_ID = 16

/** The built thread: in `dist` beside this file's own output, or in the checkout's `dist`. */
function threadUrl(): URL {
  for (let folder = dirname(fileURLToPath(import.meta.url)); ; folder = dirname(folder)) {
    const found = [join(folder, THREAD_FILE), join(folder, 'dist', THREAD_FILE)].find((file) => existsSync(file))
    if (found !== undefined) return pathToFileURL(found)
    if (dirname(folder) === folder) {
      throw new LorikeetError('CONFIG_INVALID', {
        option: 'bench',
        reason: 'the engine is not built: run `npm run build` first',
      })
    }
  }
}

export class EngineSession {
  readonly #client: EngineClient
  readonly #adapters: ReadonlyMap<string, AdapterInfo>
  #numRequests = 0

  private constructor(client: EngineClient, adapters: readonly AdapterInfo[]) {
    this.#client = client
    this.#adapters = new Map(adapters.map((adapter) => [adapter.name, adapter]))
  }

  /** @param serveArgs flags of `lorikeet serve`, those after `--` on the command line */
  static async start(serveArgs: readonly string[]): Promise<EngineSession> {
    const { config } = loadConfig(serveArgs, process.env)
    const client = EngineClient.start({ config, threadUrl: threadUrl() })
    try {
      await client.ready
      const { loaded, refused } = await loadStartAdapters(client, config.adapters, config.model.servedNames)
      for (const { name, reason } of refused) process.stderr.write(`not loaded: ${name}: ${reason}\n`)
      return new EngineSession(client, loaded)
    } catch (error) {
      await client.shutdown(0)
      throw error
    }
  }

  get model(): ModelInfo {
    return this.#client.model
  }

  /** What a server would have told of itself. */
  get serverInfo(): ServerInfo {
    const { maxModelLen, vocabSize, modelType } = this.model
    const contexts = [...this.#adapters.values()].map(
      ({ name, numVirtualTokens }) => [name, maxModelLen - numVirtualTokens] as const,
    )
    return {
      baseModel: modelType,
      adapters: [...this.#adapters.keys()],
      maxModelLen,
      maxModelLenOf: Object.fromEntries(contexts),
      tokenPool: Array.from(
        { length: Math.max(1, vocabSize - FIRST_ORDINARY_ID) },
        (_, index) => (index + FIRST_ORDINARY_ID) % vocabSize,
      ),
      tokenSource: 'vocabulary',
      version: null,
    }
  }

  /** Exactly `maxTokens` greedy tokens. Rejects with the engine's own error. */
  generate(promptTokenIds: Int32Array, maxTokens: number, adapter: string | null): Promise<RequestFinish> {
    const id = requestId(`bench-${this.#numRequests++}`)
    const adapterId = adapter === null ? null : (this.#adapters.get(adapter)?.id ?? null)
    if (adapter !== null && adapterId === null) {
      throw new LorikeetError('CONFIG_INVALID', { option: '--adapters', reason: `${adapter} is not loaded` })
    }
    const arrivedAtMs = performance.timeOrigin + performance.now()
    return new Promise((resolve, reject) => {
      const sink = ({ finish }: RequestOutput): void => {
        if (finish === null) return
        if (finish.error === null) resolve(finish)
        else reject(LorikeetError.fromWire(finish.error))
      }
      const request = {
        requestId: id,
        promptTokenIds,
        adapterId,
        sampling: greedy(maxTokens),
        priority: 0,
        cacheSalt: '',
        arrivedAtMs,
      }
      this.#client.submit(request, sink)
    })
  }

  close(): Promise<void> {
    return this.#client.shutdown(0)
  }
}
