// Runs the built program as a process of its own, as a user does.

import assert from 'node:assert/strict'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

export const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..')
export const DEMO_MODEL = join(ROOT, 'demo/model')
export const DEMO_ADAPTERS = join(ROOT, 'demo/adapters')
const MAIN = join(ROOT, 'dist/main.js')

/** A start that takes longer than this hangs. */
const START_TIMEOUT_MS = 60_000

export interface RunResult {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

export type Environment = Readonly<Record<string, string>>

/** Runs a command of the program to its end. */
export function runCli(args: readonly string[], env: Environment = {}): RunResult {
  assert.ok(existsSync(MAIN), 'dist/main.js is missing: run npm run build')
  const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, ...args], {
    encoding: 'utf8',
    timeout: START_TIMEOUT_MS,
    env: cleanEnv(env),
  })
  return { status, stdout, stderr }
}

export interface LogLine {
  readonly level: number
  readonly msg: string
  readonly [field: string]: unknown
}

/** `lorikeet serve` on a free port, with its logs. */
export class ServerProcess {
  readonly #child: ChildProcess
  readonly #exit: Promise<unknown>
  stdout = ''
  stderr = ''

  private constructor(child: ChildProcess) {
    this.#child = child
    this.#exit = once(child, 'exit')
    // A test that fails half-way must not leave a server behind.
    process.once('exit', () => child.kill('SIGKILL'))
    child.stdout?.on('data', (chunk: Buffer) => {
      this.stdout += chunk.toString()
    })
    child.stderr?.on('data', (chunk: Buffer) => {
      this.stderr += chunk.toString()
    })
  }

  static spawn(args: readonly string[], env: Environment = {}): ServerProcess {
    assert.ok(existsSync(MAIN), 'dist/main.js is missing: run npm run build')
    return new ServerProcess(
      spawn(process.execPath, [MAIN, 'serve', '--port', '0', '--host', '127.0.0.1', ...args], {
        stdio: ['ignore', 'pipe', 'pipe'],
        env: cleanEnv(env),
      }),
    )
  }

  /** Resolves when it listens. */
  static async start(args: readonly string[], env: Environment = {}): Promise<ServerProcess> {
    const server = ServerProcess.spawn(args, env)
    await server.waitForLog((line) => line.msg === 'listening')
    return server
  }

  get logs(): readonly LogLine[] {
    return this.stdout
      .split('\n')
      .slice(0, -1)
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line) as LogLine)
  }

  /** `http://127.0.0.1:PORT`. */
  get url(): string {
    const line = this.logs.find((one) => one.msg === 'listening')
    assert.ok(line, 'the server does not listen')
    return String(line['address'])
  }

  /** The whole banner: it takes another pipe than the logs, so it may arrive after them. */
  async banner(): Promise<string> {
    await this.#waitFor(() => (/\/v1\/models.*\n/.test(this.stderr) ? true : null))
    return this.stderr
  }

  waitForLog(wanted: (line: LogLine) => boolean): Promise<LogLine> {
    return this.#waitFor(() => this.logs.find(wanted) ?? null)
  }

  async #waitFor<T>(look: () => T | null): Promise<T> {
    const deadlineMs = Date.now() + START_TIMEOUT_MS
    while (Date.now() < deadlineMs) {
      const found = look()
      if (found !== null) return found
      if (this.#child.exitCode !== null) break
      await new Promise((wake) => setTimeout(wake, 20))
    }
    return assert.fail(`what was waited for did not come; exit code ${this.#child.exitCode}\n${this.stdout}\n${this.stderr}`)
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal)
  }

  /** Exit status once it ends; the signal's name if one killed it. */
  async ended(): Promise<number | string | null> {
    await this.#exit
    return this.#child.exitCode ?? this.#child.signalCode
  }

  async stop(): Promise<number | string | null> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) this.signal('SIGTERM')
    return this.ended()
  }
}

/** The variables of whoever runs the tests must not configure the servers under test. */
function cleanEnv(extra: Environment): NodeJS.ProcessEnv {
  const own = Object.entries(process.env).filter(([name]) => !/^(LORIKEET|VLLM|NODE_TEST)/.test(name))
  // Servers that run side by side cannot share gRPC's fixed port: tests of it ask for one by flags.
  return { ...Object.fromEntries(own), LORIKEET_GRPC: 'false', ...extra }
}
