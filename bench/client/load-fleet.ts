// Several client processes send one run together: each plans all of it by the same seed and sends its own share.
// Raw records are merged; no average is ever averaged.
import { type ChildProcess, fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { LorikeetError, type WireError } from '../../src/errors.ts'
import type { BenchOptions } from '../options.ts'
import type { SendLoad, ShardJob } from './load-shard.ts'
import type { Ending, LoadProgress, LoadResult } from './run-load.ts'
import type { ServerInfo } from './server-info.ts'

/** To a client process. */
export type ToClient =
  | { readonly kind: 'prepare'; readonly job: ShardJob }
  | { readonly kind: 'start'; readonly startEpochMs: number }
  | { readonly kind: 'abort' }

/** From a client process. */
export type FromClient =
  | { readonly kind: 'ready' }
  | { readonly kind: 'progress'; readonly progress: LoadProgress }
  | { readonly kind: 'result'; readonly result: LoadResult }
  | { readonly kind: 'failed'; readonly error: WireError }

/** Forks the processes and lets each plan its share; the run begins when the function that comes back is called. */
export async function prepareFleet(options: BenchOptions, server: ServerInfo): Promise<SendLoad> {
  const count = options['client-processes']
  const cap = options['max-concurrency']
  if (cap !== null && cap < count) {
    throw new LorikeetError('CONFIG_INVALID', {
      option: '--client-processes',
      reason: `${count} is more than --max-concurrency`,
    })
  }
  const clients = Array.from({ length: count }, (_, index) => new Client({ options, server, shard: { index, count } }))
  const killAll = (): void => {
    for (const client of clients) client.kill()
  }
  try {
    await Promise.all(clients.map((client) => client.ready))
  } catch (error) {
    killAll()
    throw error
  }
  return async (startEpochMs, signal, progress) => {
    const broadcast = (message: ToClient): void => {
      for (const client of clients) client.send(message)
    }
    const abort = (): void => broadcast({ kind: 'abort' })
    signal.addEventListener('abort', abort, { once: true })
    if (signal.aborted) abort()
    const meter = setInterval(() => sumProgress(clients, progress), PROGRESS_MS)
    try {
      broadcast({ kind: 'start', startEpochMs })
      return mergeResults(await Promise.all(clients.map((client) => client.result)))
    } finally {
      clearInterval(meter)
      signal.removeEventListener('abort', abort)
      killAll()
    }
  }
}

export const PROGRESS_MS = 250

class Client {
  readonly ready: Promise<void>
  readonly result: Promise<LoadResult>
  progress: LoadProgress | null = null
  readonly #child: ChildProcess

  constructor(job: ShardJob) {
    const file = import.meta.url.endsWith('.ts') ? './load-client.ts' : './load-client.js'
    this.#child = fork(fileURLToPath(new URL(file, import.meta.url)), { serialization: 'advanced' })
    const settled: { resolve: (result: LoadResult) => void; reject: (error: Error) => void } = {
      resolve: () => undefined,
      reject: () => undefined,
    }
    this.result = new Promise((resolve, reject) => Object.assign(settled, { resolve, reject }))
    // A client that fails before the start is reported through `ready`.
    this.result.catch(() => undefined)
    this.send({ kind: 'prepare', job })
    this.ready = new Promise((resolve, reject) => {
      this.#child.on('message', (message: FromClient) => {
        if (message.kind === 'ready') resolve()
        else if (message.kind === 'progress') this.#take(message.progress)
        else if (message.kind === 'result') settled.resolve(message.result)
        else {
          const error = LorikeetError.fromWire(message.error)
          reject(error)
          settled.reject(error)
        }
      })
      this.#child.on('exit', (code) => {
        const error = new LorikeetError('BENCH_FAILED', { reason: `a client process ended early with status ${code}` })
        reject(error)
        settled.reject(error)
      })
    })
  }

  send(message: ToClient): void {
    if (this.#child.connected) this.#child.send(message)
  }

  kill(): void {
    this.#child.removeAllListeners('exit')
    if (this.#child.exitCode === null) this.#child.kill()
  }

  #take(progress: LoadProgress): void {
    const unread = this.progress?.recentTtftsS ?? []
    this.progress = { ...progress, recentTtftsS: [...unread, ...progress.recentTtftsS] }
  }
}

function sumProgress(clients: readonly Client[], into: LoadProgress): void {
  const sum = (key: Exclude<keyof LoadProgress, 'recentTtftsS'>): number =>
    clients.reduce((total, client) => total + (client.progress?.[key] ?? 0), 0)
  into.numDispatched = sum('numDispatched')
  into.numInFlight = sum('numInFlight')
  into.numWaiting = sum('numWaiting')
  into.numFinished = sum('numFinished')
  into.numSucceeded = sum('numSucceeded')
  into.numMessages = sum('numMessages')
  for (const client of clients) into.recentTtftsS.push(...(client.progress?.recentTtftsS.splice(0) ?? []))
}

/** From the mildest to the gravest: the run ended as its worst process did. */
const ENDINGS: readonly Ending[] = ['completed', 'interrupted', 'server-died']

/** Delays are those of the busiest process: the run is only as punctual as that. */
export function mergeResults(results: readonly LoadResult[]): LoadResult {
  const worst = (key: keyof LoadResult['eventLoopDelayMs']): number =>
    Math.max(...results.map((result) => result.eventLoopDelayMs[key]))
  return {
    ending: ENDINGS[Math.max(...results.map((result) => ENDINGS.indexOf(result.ending)))] ?? 'completed',
    records: results.flatMap((result) => result.records).sort((a, b) => a.index - b.index),
    durationS: Math.max(...results.map((result) => result.durationS)),
    numNotSent: results.reduce((sum, result) => sum + result.numNotSent, 0),
    numClipped: results.reduce((sum, result) => sum + result.numClipped, 0),
    eventLoopDelayMs: { mean: worst('mean'), p50: worst('p50'), p99: worst('p99'), max: worst('max') },
  }
}
