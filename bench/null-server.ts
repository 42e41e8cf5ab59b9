// `lorikeet serve` as a process of its own, for benches of what surrounds a model: on the null backend unless told otherwise.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { invariant } from '../src/core/invariant.ts'
import { LorikeetError } from '../src/errors.ts'

export const MODEL = 'demo/model'
export const MODEL_NAME = 'demo'
const START_TIMEOUT_MS = 30_000
const STOP_TIMEOUT_MS = 10_000
const POLL_MS = 50
/** Enough of a failed server's last words to see why. */
const MAX_COMPLAINT_CHARS = 2000

export interface NullServer {
  readonly url: string
  readonly pid: number
  stop(): Promise<void>
}

/** Starts the built server on a free port; its log, one line a request, goes nowhere but is written. `flags` are further ones. */
export async function startNullServer(flags: readonly string[], backend = 'null'): Promise<NullServer> {
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  const fixed = ['--model', MODEL, '--served-model-name', MODEL_NAME, '--backend', backend, '--host', '127.0.0.1']
  const child = spawn(process.execPath, ['dist/main.js', 'serve', ...fixed, '--port', String(port), ...flags], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let complaints = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaints = (complaints + text).slice(-MAX_COMPLAINT_CHARS)
  })
  const deadlineMs = performance.now() + START_TIMEOUT_MS
  while (!(await isHealthy(url))) {
    if (child.exitCode !== null || performance.now() > deadlineMs) {
      child.kill('SIGKILL')
      throw new LorikeetError('ENGINE_DEAD', { reason: `exit code ${child.exitCode}; ${complaints}` })
    }
    await sleep(POLL_MS)
  }
  return { url, pid: child.pid ?? 0, stop: () => stopServer(child) }
}

async function stopServer(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return
  const exited = once(child, 'exit')
  child.kill('SIGTERM')
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_TIMEOUT_MS)
  await exited
  clearTimeout(timer)
}

async function isHealthy(url: string): Promise<boolean> {
  try {
    return (await fetch(`${url}/health`)).ok
  } catch {
    return false
  }
}

export async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const address = probe.address()
  invariant(address !== null && typeof address === 'object', 'a listening socket has an address')
  probe.close()
  await once(probe, 'close')
  return address.port
}
