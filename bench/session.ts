// A session runs several settings in turn, against one server or, where settings name server flags, against one it restarts.
import { LorikeetError } from '../src/errors.ts'
import { ServerProcess } from './client/server-process.ts'
import type { BenchResult } from './metrics/bench-result.ts'
import { overlayOptions } from './options.ts'
import type { NamedResult } from './report/charts.ts'
import { openServer, runServe, type ServeContext } from './run-serve.ts'

export class Session {
  readonly results: NamedResult[] = []
  readonly #args: readonly string[]
  readonly #signal: AbortSignal
  readonly #onResult: (named: NamedResult) => void
  #server: ServerProcess | null = null

  /** @param args flags of every run; a run's own come after them and win */
  constructor(args: readonly string[], signal: AbortSignal, onResult: (named: NamedResult) => void) {
    this.#args = args
    this.#signal = signal
    this.#onResult = onResult
  }

  get isInterrupted(): boolean {
    return this.#signal.aborted
  }

  /** The server's own account of itself, with the server started if it is ours. */
  async open(runArgs: readonly string[] = [], command?: string): Promise<ServeContext> {
    const options = overlayOptions(this.#args, runArgs)
    const wanted = command ?? options['start-server']
    if (wanted !== null && this.#server?.command !== wanted) {
      await this.close()
      this.#server = new ServerProcess(wanted)
    }
    const server = this.#server
    if (server === null) return await openServer(options, this.#signal)
    const signal = AbortSignal.any([this.#signal, server.ended])
    try {
      return await openServer(options, signal)
    } catch (error) {
      throw server.ended.aborted ? server.failure() : error
    }
  }

  /** One run. @param command of the server, when this run wants another than `--start-server` says */
  async run(name: string, runArgs: readonly string[], command?: string): Promise<BenchResult> {
    const context = await this.open(runArgs, command)
    const options = overlayOptions(this.#args, runArgs)
    const label = [options.label, name].filter((part) => part !== null && part !== '').join(' ') || null
    const result = await runServe({ ...options, label }, context, this.#signal)
    const named = { name: label ?? 'run', result }
    this.results.push(named)
    this.#onResult(named)
    return result
  }

  async close(): Promise<void> {
    const server = this.#server
    this.#server = null
    await server?.stop()
  }
}

/** Refuses what the session cannot do before anything runs. */
export function requireServerCommand(command: string | null, why: string): string {
  if (command !== null) return command
  throw new LorikeetError('CONFIG_INVALID', {
    option: '--start-server',
    reason: `${why} needs a server that this command starts`,
  })
}
