// A server that the harness starts itself: `--start-server COMMAND`, for sweeps over server flags and for CI.
import { type ChildProcess, spawn } from 'node:child_process'
import { LorikeetError } from '../../src/errors.ts'

/** Lines of its log shown when it dies. */
const MAX_LOG_CHARS = 2000

/** A server gets this long to drain before it is killed. */
const STOP_TIMEOUT_MS = 10_000

export class ServerProcess {
  readonly command: string
  readonly #child: ChildProcess
  #log = ''
  /** Aborted when the process ends by itself. */
  readonly #ended = new AbortController()

  /** The command goes through the shell, so that it can be quoted as on a terminal. */
  constructor(command: string) {
    this.command = command
    // Its own group: the shell and what it started end together.
    this.#child = spawn(command, { shell: true, detached: true, stdio: ['ignore', 'pipe', 'pipe'] })
    const keep = (chunk: string): void => {
      this.#log = (this.#log + chunk).slice(-MAX_LOG_CHARS)
    }
    this.#child.stdout?.setEncoding('utf8').on('data', keep)
    this.#child.stderr?.setEncoding('utf8').on('data', keep)
    this.#child.on('exit', () => this.#ended.abort())
    this.#child.on('error', () => this.#ended.abort())
  }

  get ended(): AbortSignal {
    return this.#ended.signal
  }

  /** What to throw when it ended before it was ready. */
  failure(): LorikeetError {
    return new LorikeetError('BENCH_FAILED', { reason: `the server ended: ${this.command}\n${this.#log.trim()}` })
  }

  async stop(): Promise<void> {
    if (this.#ended.signal.aborted) return
    const ended = new Promise<void>((resolve) => this.#child.once('exit', () => resolve()))
    this.#signal('SIGTERM')
    const timer = setTimeout(() => this.#signal('SIGKILL'), STOP_TIMEOUT_MS)
    await ended
    clearTimeout(timer)
  }

  #signal(name: NodeJS.Signals): void {
    if (this.#child.pid === undefined) return
    try {
      process.kill(-this.#child.pid, name)
    } catch {
      // It ended between the test and the signal.
    }
  }
}
